package controller

import (
	"strings"
	"testing"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/kube"
)

func TestRunsHaveABackupOfEachDeploymentAndOfThoseThatAreMissing(t *testing.T) {
	shop := kube.Application{Name: "shop", Namespaces: []string{"web"}, Deployed: []kube.Deployed{{Name: "argocd/argocd/shop"}}}
	other := kube.Application{Name: "teams.shop", Deployed: []kube.Deployed{{Name: "argocd/teams/shop"}}}
	infra := kube.Application{Name: "infra", Namespaces: []string{"infra"}, Deployed: []kube.Deployed{{Name: "flux/apps/infra"}}}
	for _, test := range []struct {
		name    string
		source  v1alpha1.Applications
		found   []kube.Application
		missing bool
		want    string // APPLICATION=SELECTION
	}{
		{"globs", v1alpha1.Applications{ArgoCD: []string{"*"}}, []kube.Application{shop, other}, false, "shop=argocd/shop teams.shop=teams/shop"},
		{
			"missing",
			v1alpha1.Applications{ArgoCD: []string{"shop", "gone", "argocd/away", "none-*"}},
			[]kube.Application{shop},
			true,
			"shop=argocd/shop gone=gone argocd.away=argocd/away",
		},
		{"both engines", v1alpha1.Applications{ArgoCD: []string{"shop"}, Flux: []string{"infra", "gone"}}, []kube.Application{shop, infra}, true, "shop=argocd/shop infra=flux:apps/infra gone=flux:gone"},
		{"of another engine", v1alpha1.Applications{Flux: []string{"shop"}}, []kube.Application{infra}, true, "infra=flux:apps/infra shop=flux:shop"},
		{"under one name", v1alpha1.Applications{Name: "all", ArgoCD: []string{"shop", "gone"}}, []kube.Application{shop}, true, "all=shop,gone"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, s := range deploymentsOf(test.source, test.found, test.missing) {
				by := strings.Join(s.by.ArgoCD, ",")
				if len(s.by.Flux) > 0 {
					by += "flux:" + strings.Join(s.by.Flux, ",")
				}
				got = append(got, s.application+"="+by)
				if len(s.by.Namespaces) > 0 {
					t.Errorf("%s selects namespaces %q", s.application, s.by.Namespaces)
				}
			}
			if text := strings.Join(got, " "); text != test.want {
				t.Errorf("got %q, want %q", text, test.want)
			}
		})
	}
}
