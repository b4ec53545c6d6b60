package bitbucket_test

import (
	"cmp"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// object is a thing as Bitbucket's API shows it.
type object = map[string]any

// shelf is what the fake has of its repository beside the code, by path: "hooks", "pullrequests/3/comments".
type shelf map[string][]object

// beside answers what is asked of a repository beside its code.
func (f *fake) beside(w http.ResponseWriter, r *http.Request) {
	path := r.PathValue("path")
	number, isPatch := strings.CutSuffix(strings.TrimPrefix(path, "pullrequests/"), "/patch")
	switch {
	case isPatch && f.patches[number] != "":
		http.Redirect(w, r, "/2.0/repositories/"+r.PathValue("workspace")+"/"+r.PathValue("repository")+"/patch/"+number, http.StatusFound)
	case isPatch:
		refuse(w, http.StatusNotFound, "Commit not found.")
	case strings.HasPrefix(path, "patch/"):
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, f.patches[strings.TrimPrefix(path, "patch/")])
	case f.denied[path]:
		refuse(w, http.StatusForbidden, "Your credentials lack one or more required privilege scopes.")
	case path == "pullrequests":
		f.page(w, r, f.pulls(r))
	case path == "pipelines_config":
		answer(w, http.StatusOK, object{"type": "repository_pipelines_configuration", "enabled": true})
	case strings.HasPrefix(path, "downloads/"):
		io.WriteString(w, "some bytes")
	case path == "issues":
		refuse(w, http.StatusGone, "The issue tracker has been removed.")
	default:
		if one := f.one(path); one != nil {
			answer(w, http.StatusOK, one)
			return
		}
		var all []any
		for _, o := range f.shelf[path] {
			all = append(all, o)
		}
		f.page(w, r, all)
	}
}

// one is a pull request by itself.
func (f *fake) one(path string) object {
	for _, o := range f.shelf["pullrequests"] {
		if path == "pullrequests/"+itoa(o["id"]) {
			return o
		}
	}
	return nil
}

// pulls are listed by the time of change, in the states that are asked for: without, the open ones. Lists leave out who takes part,
// unless asked.
func (f *fake) pulls(r *http.Request) (all []any) {
	if f.shift != nil {
		f.shift()
	}
	states := r.URL.Query()["state"]
	if len(states) == 0 {
		states = []string{"OPEN"}
	}
	since := strings.TrimPrefix(r.FormValue("q"), "updated_on >= ")
	by := cmp.Or(r.FormValue("sort"), "created_on")
	sorted := slices.Clone(f.shelf["pullrequests"])
	slices.SortStableFunc(sorted, func(a, b object) int { return timeOf(a[by].(string)).Compare(timeOf(b[by].(string))) })
	for _, o := range sorted {
		if since != "" && timeOf(o["updated_on"].(string)).Before(timeOf(since)) || !slices.Contains(states, o["state"].(string)) {
			continue
		}
		shown := object{}
		for name, value := range o {
			if name != "participants" && name != "reviewers" || strings.Contains(r.FormValue("fields"), "+values."+name) && !f.forgets {
				shown[name] = value
			}
		}
		all = append(all, shown)
	}
	return all
}

func timeOf(s string) time.Time {
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return at
}

func person(name string) object {
	return object{
		"type": "user", "uuid": "{" + name + "}", "nickname": name, "display_name": strings.ToUpper(name[:1]) + name[1:],
		"links": object{"html": object{"href": "https://bitbucket.org/" + name}},
	}
}

func said(id int, by, text, at string, more object) object {
	o := object{
		"id": id, "content": object{"type": "rendered", "raw": text, "markup": "markdown"}, "user": person(by), "created_on": at, "updated_on": at,
		"deleted": false, "pending": false, "links": object{"html": object{"href": "https://bitbucket.org/acme/api/pull-requests/3#comment-" + itoa(id)}},
	}
	for name, value := range more {
		o[name] = value
	}
	return o
}

const (
	headOID = "1111111111111111111111111111111111111111"
	baseOID = "2222222222222222222222222222222222222222"
)

func side(branch, oid, repository string) object {
	o := object{"branch": object{"name": branch}, "commit": object{"hash": oid}, "repository": nil}
	if repository != "" {
		o["repository"] = object{"full_name": repository}
	}
	return o
}

func update(state, title, by, at string) object {
	return object{"pull_request": object{"id": 3}, "update": object{
		"state": state, "title": title, "author": person(by), "date": at, "reason": "", "source": side("fix", headOID, "jo/api"), "changes": object{},
	}}
}

// furnish fills the repository: a merged pull request of a fork that is gone, and an open one.
func (f *fake) furnish(origin string) {
	day := "2026-01-0"
	f.patches = map[string]string{"3": "From " + headOID + "\nSubject: [PATCH] Fix\n"}
	f.shelf = shelf{
		"pullrequests": {
			{
				"type": "pullrequest", "id": 3, "title": "Fix it", "description": "It broke. ![shot](" + origin + "/repo/aB1/images/1-shot.png)", "state": "MERGED",
				"author": person("jo"), "closed_by": person("ada"), "comment_count": 4, "task_count": 1, "draft": false,
				"source": side("fix", headOID, ""), "destination": side("main", baseOID, "acme/api"), "merge_commit": object{"hash": "3333"},
				"created_on": day + "1T00:00:00.000000+00:00", "updated_on": day + "5T00:00:00.000000+00:00",
				"reviewers": []object{person("ada"), person("eve")},
				"participants": []object{
					{"type": "participant", "user": person("ada"), "role": "REVIEWER", "approved": true, "state": "approved", "participated_on": day + "4T00:00:00+00:00"},
					{"type": "participant", "user": person("eve"), "role": "REVIEWER", "approved": false, "state": nil, "participated_on": nil},
				},
				"links": object{"html": object{"href": "https://bitbucket.org/acme/api/pull-requests/3"}},
			},
			{
				"type": "pullrequest", "id": 4, "title": "More", "description": "", "state": "OPEN", "author": person("jo"), "comment_count": 0, "task_count": 0,
				"source": side("more", headOID, "acme/api"), "destination": side("main", baseOID, "acme/api"), "merge_commit": nil,
				"created_on": day + "2T00:00:00.000000+00:00", "updated_on": day + "2T00:00:00.000000+00:00",
				"reviewers": []object{}, "participants": []object{},
			},
		},
		"pullrequests/3/comments": {
			said(11, "ada", "Why?", day+"2T00:00:00+00:00", nil),
			said(12, "ada", "This line", day+"2T01:00:00+00:00", object{
				"inline": object{"path": "a.go", "from": nil, "to": 7}, "resolution": object{"user": person("jo")},
			}),
			said(13, "jo", "Done", day+"2T02:00:00+00:00", object{"parent": object{"id": 12}, "inline": object{"path": "a.go", "to": 7}}),
			said(14, "eve", "", day+"2T03:00:00+00:00", object{"deleted": true}),
		},
		"pullrequests/3/tasks": {said(5, "ada", "a test", day+"3T00:00:00+00:00", object{"state": "RESOLVED", "creator": person("ada")})},
		"pullrequests/3/activity": {
			update("MERGED", "Fix it", "ada", day+"5T00:00:00+00:00"),
			{"approval": object{"date": day + "4T00:00:00+00:00", "user": person("ada")}},
			{"comment": said(11, "ada", "Why?", day+"2T00:00:00+00:00", nil)},
			update("OPEN", "Fix it", "jo", day+"1T12:00:00+00:00"),
			update("OPEN", "Fix", "jo", day+"1T00:00:00+00:00"),
		},
		"pullrequests/3/statuses": {{"key": "CI", "state": "SUCCESSFUL", "url": "https://ci.example.com/1"}},
		"pullrequests/3/commits":  {{"hash": headOID, "message": "Fix"}},
		"branch-restrictions": {
			{"id": 1, "kind": "force", "branch_match_kind": "glob", "pattern": "main"},
			{"id": 2, "kind": "require_approvals_to_merge", "branch_match_kind": "glob", "pattern": "main", "value": 2},
			{"id": 3, "kind": "delete", "branch_match_kind": "branching_model", "branch_type": "production", "pattern": ""},
		},
		"default-reviewers": {person("ada")},
		"downloads": {{
			"name": "api.zip", "size": 10, "downloads": 3, "created_on": day + "1T00:00:00+00:00", "user": person("ada"),
			"links": object{"self": object{"href": origin + "/2.0/repositories/acme/api/downloads/api.zip"}},
		}},
		"hooks":                      {{"uuid": "{h}", "url": "https://u:sesame@ci.example.com/hook?token=sesame", "active": true, "events": []string{"repo:push"}, "secret": "sesame"}},
		"deploy-keys":                {{"id": 9, "key": "ssh-ed25519 AAAA", "label": "ci", "comment": "ci@example.com"}},
		"permissions-config/users":   {{"permission": "admin", "user": person("ada")}},
		"permissions-config/groups":  {{"permission": "write", "group": object{"slug": "devs", "name": "Devs"}}},
		"pipelines_config/variables": {{"uuid": "{v}", "key": "TOKEN", "secured": false, "value": "sesame"}},
	}
}
