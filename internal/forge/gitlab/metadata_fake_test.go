package gitlab_test

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/forge/forgetest"
)

// object is a thing as GitLab's API shows it.
type object = map[string]any

// shelf is what the fake has of one project beside its code, by path below the project's: "issues", "issues/3/discussions".
type shelf map[string][]object

// shelfOf is the shelf of a project.
func (f *fake) shelfOf(id int64) shelf {
	if f.shelves[id] == nil {
		f.shelves[id] = shelf{}
	}
	return f.shelves[id]
}

// add puts an object on a shelf, with an ID and dates unless it has them.
func (f *fake) add(id int64, path string, o object) object {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.put(id, path, o)
}

func (f *fake) put(id int64, path string, o object) object {
	f.lastID++
	for key, value := range map[string]any{"id": f.lastID, "created_at": f.stamp()} {
		if _, has := o[key]; !has {
			o[key] = value
		}
	}
	f.shelfOf(id)[path] = append(f.shelfOf(id)[path], o)
	return o
}

// stamp is the time as GitLab writes it, and moves on by a second, so that nothing is of one instant by accident.
func (f *fake) stamp() string {
	f.tick++
	return stamp(f.world.Now().Add(time.Duration(f.tick) * time.Second))
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// person is somebody as GitLab shows them.
func person(name string) object {
	id := 0
	for _, c := range name {
		id = id*31%9973 + int(c)
	}
	return object{"id": id, "username": name, "name": strings.ToUpper(name[:1]) + name[1:], "state": "active", "web_url": "http://gitlab.internal/" + name}
}

// metadata answers for what a project has beside its code, by the rest of the path.
func (f *fake) metadata(w http.ResponseWriter, r *http.Request) {
	repo, ok := f.find(w, r)
	if !ok {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	rest := r.PathValue("rest")
	all := f.shelfOf(repo.ID)
	if owner, _, below := cutItem(rest); below && !all.has(owner) {
		refuse(w, http.StatusNotFound, "404 Not found")
		return
	}
	if f.hidden[rest] {
		refuse(w, http.StatusForbidden, "403 Forbidden")
		return
	}
	switch last := rest[strings.LastIndexByte(rest, '/')+1:]; {
	case rest == "issues_statistics":
		answer(w, http.StatusOK, object{"statistics": object{"counts": object{"all": len(all["issues"])}}})
	case rest == "issues", rest == "merge_requests":
		page(w, r, changed(r, all[rest]))
	case last == "approvals":
		answer(w, http.StatusOK, approvals(all[rest]))
	case strings.HasPrefix(rest, "uploads/"):
		f.download(w, repo.ID, rest)
	default:
		if o := all.one(rest); o != nil {
			answer(w, http.StatusOK, o)
			return
		}
		if collection, _, ok := strings.Cut(rest, "/"); ok && keyOf(collection) != "" && !strings.Contains(rest[len(collection)+1:], "/") {
			refuse(w, http.StatusNotFound, "404 Not found")
			return
		}
		page(w, r, anys(all[rest]))
	}
}

// keyOf is by what the things of a collection are asked for; "" for their ID.
func keyOf(collection string) string {
	return map[string]string{"issues": "iid", "merge_requests": "iid", "releases": "tag_name", "protected_branches": "name", "protected_tags": "name"}[collection]
}

// cutItem cuts "issues/3/notes" into "issues/3" and "notes".
func cutItem(path string) (item, below string, ok bool) {
	parts := strings.SplitN(path, "/", 3)
	if len(parts) < 3 || (parts[0] != "issues" && parts[0] != "merge_requests") {
		return "", "", false
	}
	return parts[0] + "/" + parts[1], parts[2], true
}

func (s shelf) has(item string) bool { return s.one(item) != nil }

// one finds "issues/3", "releases/v1", "milestones/8".
func (s shelf) one(path string) object {
	cut := strings.LastIndexByte(path, '/')
	if cut < 0 {
		return nil
	}
	key := cmp.Or(keyOf(path[:cut]), "id")
	for _, o := range s[path[:cut]] {
		if fmt.Sprint(o[key]) == path[cut+1:] {
			return o
		}
	}
	return nil
}

func anys(all []object) []any {
	items := make([]any, len(all))
	for i, o := range all {
		items[i] = o
	}
	return items
}

// changed are the items that changed at a time or after it, the oldest change first.
func changed(r *http.Request, all []object) []any {
	if r.FormValue("per_page") == "1" || r.FormValue("order_by") == "created_at" && r.FormValue("state") == "all" {
		return anys(all)
	}
	if r.FormValue("order_by") != "updated_at" || r.FormValue("sort") != "asc" || r.FormValue("state") != "all" {
		return nil // what the API would answer is not what is wanted
	}
	since, _ := time.Parse(time.RFC3339Nano, r.FormValue("updated_after"))
	var found []object
	for _, o := range all {
		if at, _ := time.Parse(time.RFC3339Nano, o["updated_at"].(string)); !at.Before(since) {
			found = append(found, o)
		}
	}
	slices.SortStableFunc(found, func(a, b object) int { return strings.Compare(a["updated_at"].(string), b["updated_at"].(string)) })
	return anys(found)
}

func approvals(by []object) object {
	all := []object{}
	for _, o := range by {
		all = append(all, object{"user": o["user"], "approved_at": o["created_at"]})
	}
	return object{"approved": len(all) > 0, "approved_by": all}
}

func (f *fake) download(w http.ResponseWriter, id int64, path string) {
	content, ok := f.uploads[fmt.Sprint(id, "/", path)]
	if !ok {
		refuse(w, http.StatusNotFound, "404 Not found")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	fmt.Fprint(w, content)
}

// item adds an issue or a merge request.
func (f *fake) item(id int64, path string, iid int, more object) object {
	sign := map[string]string{"issues": "#", "merge_requests": "!"}[path]
	repo, _ := f.world.ByID(id)
	o := object{
		"iid": iid, "project_id": id, "title": fmt.Sprintf("title of %s%d", sign, iid), "description": nil, "state": "opened",
		"author": person("ada"), "labels": []string{}, "milestone": nil, "assignees": []object{}, "user_notes_count": 0,
		"closed_at": nil, "closed_by": nil, "discussion_locked": nil, "due_date": nil,
		"web_url":    fmt.Sprintf("http://gitlab.internal/%s/-/%s/%d", repo.FullName(), path, iid),
		"references": object{"short": fmt.Sprint(sign, iid), "full": fmt.Sprint(repo.FullName(), sign, iid)},
	}
	if path == "merge_requests" {
		maps.Copy(o, object{
			"source_branch": "feature", "target_branch": "main", "source_project_id": id, "target_project_id": id, "draft": false,
			"sha": strings.Repeat("c", 40), "merge_commit_sha": nil, "squash_commit_sha": nil, "merged_at": nil, "merge_user": nil, "reviewers": []object{},
		})
		delete(o, "due_date")
	}
	maps.Copy(o, more)
	o = f.add(id, path, o)
	if o["updated_at"] == nil {
		o["updated_at"] = o["created_at"]
	}
	return o
}

// thread adds a thread of notes to an item; one note that stands alone where there is just one and it has no position.
func (f *fake) thread(id int64, item string, notes ...object) object {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.putThread(id, item, notes...)
}

func (f *fake) putThread(id int64, item string, notes ...object) object {
	for i, n := range notes {
		notes[i] = f.note(item, n)
	}
	f.lastID++
	alone := len(notes) == 1 && notes[0]["position"] == nil
	o := object{"id": fmt.Sprintf("%040x", f.lastID), "individual_note": alone, "notes": notes, "created_at": ""}
	f.touch(id, item)
	return f.put(id, item+"/discussions", o)
}

func (f *fake) note(item string, more object) object {
	f.lastID++
	n := object{
		"id": f.lastID, "type": nil, "body": "a note", "author": person("bob"), "created_at": f.stamp(), "system": false,
		"resolvable": false,
	}
	if strings.HasPrefix(item, "merge_requests/") {
		n["resolvable"], n["resolved"], n["resolved_by"] = true, false, nil
	}
	maps.Copy(n, more)
	if n["position"] != nil {
		n["type"] = "DiffNote"
	}
	if n["updated_at"] == nil {
		n["updated_at"] = n["created_at"]
	}
	return n
}

// touch moves an item's updated_at, as most of what is done to it does.
func (f *fake) touch(id int64, item string) {
	if o := f.shelfOf(id).one(item); o != nil {
		o["updated_at"] = f.stamp()
	}
}

// furnish gives a project some of everything.
func (f *fake) furnish(repo forgetest.Repo) {
	id := repo.ID
	f.add(id, "labels", object{"name": "bug", "color": "#FF0000", "text_color": "#FFFFFF", "description": "wrong", "is_project_label": true})
	f.add(id, "labels", object{"name": "prio::high", "color": "#00ff00", "text_color": "#FFFFFF", "description": nil, "is_project_label": false})
	f.add(id, "milestones", object{
		"iid": 1, "title": "v1", "description": "the first", "state": "closed", "due_date": "2026-02-01", "start_date": nil,
		"updated_at": "2026-02-02T00:00:00.000Z", "created_at": "2026-01-01T00:00:00.000Z",
	})
	f.item(id, "issues", 1, object{
		"description": "it breaks, see !1 and ![shot](/uploads/0123456789abcdef0123456789abcdef/shot.png)", "labels": []string{"bug", "prio::high"},
		"milestone": object{"id": 3, "iid": 1, "title": "v1"}, "assignees": []object{person("bob")}, "due_date": "2026-01-20", "state": "closed",
		"closed_at": "2026-01-15T10:00:00.000Z", "closed_by": person("bob"), "created_at": "2026-01-10T10:00:00.000Z", "discussion_locked": true,
	})
	f.item(id, "issues", 2, object{"confidential": true})
	f.item(id, "issues", 7, object{"title": "much <b>later</b>", "description": "<script>alert(1)</script> @everybody"})
	f.item(id, "merge_requests", 1, object{
		"title": "Draft: mend it", "description": "closes #1", "draft": true, "reviewers": []object{person("cy")}, "labels": []string{"bug"},
	})
	f.item(id, "merge_requests", 2, object{
		"state": "merged", "merged_at": "2026-01-15T09:00:00.000Z", "merge_user": person("cy"), "merge_commit_sha": strings.Repeat("d", 40),
		"created_at": "2026-01-12T09:00:00.000Z", "source_project_id": 999, "source_branch": "patch", "description": "after !1, for #7\n\n/close\n",
	})
	f.thread(id, "issues/1", object{"body": "me too", "internal": true, "created_at": "2026-01-11T10:00:00.000Z"})
	f.thread(id, "issues/1", object{"body": "mentioned in merge request !1", "system": true, "created_at": "2026-01-11T11:00:00.000Z"})
	f.thread(id, "issues/1", object{"body": "why?", "created_at": "2026-01-12T10:00:00.000Z"}, object{"body": "because", "created_at": "2026-01-12T11:00:00.000Z"})
	position := object{
		"base_sha": strings.Repeat("a", 40), "start_sha": strings.Repeat("a", 40), "head_sha": strings.Repeat("c", 40),
		"old_path": "main.go", "new_path": "main.go", "position_type": "text", "old_line": nil, "new_line": 12,
	}
	f.thread(id, "merge_requests/1",
		object{"body": "this is wrong", "position": position, "resolved": true, "resolved_by": person("ada"), "created_at": "2026-01-13T10:00:00.000Z"},
		object{"body": "mended", "position": position, "author": person("ada"), "created_at": "2026-01-13T11:00:00.000Z"})
	f.thread(id, "merge_requests/1", object{"body": "thank you", "created_at": "2026-01-14T10:00:00.000Z"})
	f.add(id, "merge_requests/2/approvals", object{"user": person("cy"), "created_at": "2026-01-15T08:00:00.000Z"})
	f.add(id, "merge_requests/1/versions", object{
		"head_commit_sha": strings.Repeat("c", 40), "base_commit_sha": strings.Repeat("a", 40), "start_commit_sha": strings.Repeat("a", 40),
	})
	f.add(id, "issues/1/resource_label_events", object{
		"user": person("bob"), "action": "add", "label": object{"id": 1, "name": "bug"}, "created_at": "2026-01-10T11:00:00.000Z",
	})
	f.add(id, "issues/1/resource_label_events", object{"user": person("bob"), "action": "remove", "label": nil, "created_at": "2026-01-10T11:30:00.000Z"})
	f.add(id, "issues/1/resource_state_events", object{"user": person("bob"), "state": "closed", "created_at": "2026-01-15T10:00:00.000Z"})
	f.add(id, "issues/1/resource_milestone_events", object{
		"user": person("bob"), "action": "add", "milestone": object{"id": 3, "title": "v1"}, "created_at": "2026-01-10T12:00:00.000Z",
	})
	f.add(id, "issues/1/award_emoji", object{"name": "thumbsup", "user": person("cy"), "updated_at": "2026-01-11T00:00:00.000Z"})
	f.add(id, "issues/1/links", object{
		"iid": 2, "issue_link_id": 4, "link_type": "is_blocked_by", "references": object{"full": repo.FullName() + "#2"}, "updated_at": "2026-01-11T00:00:00.000Z",
	})
	f.add(id, "releases", object{
		"tag_name": "v1.0", "name": "One", "description": "finally", "author": person("ada"), "created_at": "2026-01-16T10:00:00.000Z",
		"released_at": "2026-01-17T10:00:00.000Z", "commit": object{"id": strings.Repeat("d", 40)},
		"assets": object{"count": 2, "links": []object{
			{"id": 1, "name": "app.tar.gz", "url": "http://gitlab.internal/api/v4/projects/5/packages/generic/app/1.0/app.tar.gz", "link_type": "package"},
			{"id": 2, "name": "elsewhere", "url": "https://downloads.example.net/app.zip", "link_type": "other"},
		}},
		"_links": object{"self": "http://gitlab.internal/" + repo.FullName() + "/-/releases/v1.0"},
	})
	f.add(id, "protected_branches", object{
		"name": "main", "push_access_levels": []object{{"access_level": 40, "access_level_description": "Maintainers"}},
		"merge_access_levels": []object{{"access_level": 30, "access_level_description": "Developers + Maintainers"}}, "allow_force_push": false,
	})
	f.add(id, "protected_tags", object{"name": "v*", "create_access_levels": []object{{"access_level": 0, "access_level_description": "No one"}}})
	f.add(id, "hooks", object{
		"url": "https://jo:pw@ci.example.com/hook?token=geheim", "push_events": true, "issues_events": false, "token": "geheim", "note_events": true,
	})
	f.add(id, "deploy_keys", object{"title": "ci", "key": "ssh-ed25519 AAAA ci", "can_push": false})
	f.add(id, "members/all", object{"username": "cy", "name": "Cy", "access_level": 40, "state": "active"})
	f.add(id, "snippets", object{"title": "a script", "file_name": "x.sh", "updated_at": "2026-01-11T00:00:00.000Z"})
	f.add(id, "boards", object{"name": "Development", "lists": []object{}})
}

// graphQL answers the one question that is asked: what changed last in some projects.
func (f *fake) graphQL(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	body := decoded(r)
	if f.old {
		answer(w, http.StatusOK, object{"errors": []object{{"message": "Field 'releases' doesn't exist on type 'Project'"}}})
		return
	}
	nodes := []object{}
	for _, id := range body["variables"].(object)["ids"].([]any) {
		n, _ := strconv.ParseInt(strings.TrimPrefix(id.(string), "gid://gitlab/Project/"), 10, 64)
		if _, found := f.world.ByID(n); !found {
			continue
		}
		node := object{"id": id, "releases": object{"count": len(f.shelfOf(n)["releases"])}}
		for name, path := range map[string]string{"issues": "issues", "mergeRequests": "merge_requests"} {
			all := f.shelfOf(n)[path]
			newest := []object{}
			for _, o := range all {
				at := o["updated_at"].(string)[:19] + "Z" // whole seconds
				if len(newest) == 0 || at > newest[0]["updatedAt"].(string) {
					newest = []object{{"updatedAt": at}}
				}
			}
			node[name] = object{"count": len(all), "nodes": newest}
		}
		nodes = append(nodes, node)
	}
	answer(w, http.StatusOK, object{"data": object{"projects": object{"nodes": nodes}}})
}
