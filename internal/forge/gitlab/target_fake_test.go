package gitlab_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// change answers for what is made, changed and removed of what a project has beside its code.
func (f *fake) change(w http.ResponseWriter, r *http.Request) {
	repo, ok := f.find(w, r)
	if !ok {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	rest := r.PathValue("rest")
	if f.refuse != nil && f.refuse(r.Method+" "+rest) {
		refuse(w, http.StatusForbidden, "403 Forbidden")
		return
	}
	parts := strings.Split(rest, "/")
	switch {
	case rest == "uploads":
		f.store(w, r, repo.ID)
		return
	case strings.HasPrefix(rest, "packages/generic/"):
		content, _ := io.ReadAll(r.Body)
		if f.hidden["packages"] {
			refuse(w, http.StatusForbidden, "403 Forbidden")
			return
		}
		f.uploads[fmt.Sprint(repo.ID, "/", rest)] = string(content)
		answer(w, http.StatusCreated, object{"message": "201 Created"})
		return
	case rest == "archive":
		answer(w, http.StatusCreated, object{})
		return
	case r.Method == http.MethodDelete:
		all := f.shelfOf(repo.ID)
		all[parts[0]] = slices.DeleteFunc(all[parts[0]], func(o object) bool { return o["name"] == parts[1] })
		w.WriteHeader(http.StatusNoContent)
		return
	}
	body := decoded(r)
	if r.Method == http.MethodPut {
		f.edit(w, repo.ID, rest, body)
		return
	}
	f.create(w, repo.ID, rest, parts, body)
}

// quickActions are lines that GitLab takes for commands, and does not keep.
var quickActions = regexp.MustCompile(`(?m)^/(close|lock|assign)\b.*$`)

// create makes something, and refuses what is there already as GitLab does.
func (f *fake) create(w http.ResponseWriter, id int64, rest string, parts []string, body object) {
	all := f.shelfOf(id)
	for _, key := range []string{"description", "body"} {
		if text, ok := body[key].(string); ok {
			body[key] = quickActions.ReplaceAllString(text, "")
		}
	}
	me := person(f.world.Token().Account)
	made := object{"author": me}
	last := parts[len(parts)-1]
	switch {
	case len(parts) == 1 && (rest == "issues" || rest == "merge_requests"):
		f.createItem(w, id, rest, body)
		return
	case last == "notes" && len(parts) == 3:
		thread := f.putThread(id, parts[0]+"/"+parts[1], f.said(body))
		answer(w, http.StatusCreated, thread["notes"].([]object)[0])
		return
	case last == "notes":
		thread := all.one(strings.Join(parts[:4], "/"))
		note := f.note(parts[0]+"/"+parts[1], f.said(body))
		thread["notes"], thread["individual_note"] = append(thread["notes"].([]object), note), false
		answer(w, http.StatusCreated, note)
		return
	case last == "links":
		release := all.one(parts[0] + "/" + parts[1])
		f.lastID++
		made = object{"id": f.lastID, "name": body["name"], "url": body["url"], "link_type": body["link_type"]}
		assets := release["assets"].(object)
		assets["links"] = append(assets["links"].([]object), made)
		answer(w, http.StatusCreated, made)
		return
	case rest == "releases":
		made["assets"], made["commit"] = object{"links": []object{}}, object{"id": body["ref"]}
		made["_links"] = object{"self": "http://gitlab.internal/-/releases/" + body["tag_name"].(string)}
	case rest == "milestones":
		made["state"], made["iid"], made["updated_at"] = "active", len(all[rest])+1, f.stamp()
	case rest == "protected_branches":
		level := int(body["push_access_level"].(float64))
		made = object{"push_access_levels": []object{{"access_level": level, "access_level_description": levelNames()[level]}}, "allow_force_push": false}
	case rest == "protected_tags":
		level := int(body["create_access_level"].(float64))
		made = object{"create_access_levels": []object{{"access_level": level, "access_level_description": levelNames()[level]}}}
	}
	for _, key := range []string{"name", "title", "tag_name", "key"} {
		if body[key] != nil && slices.ContainsFunc(all[rest], func(o object) bool { return o[key] == body[key] }) {
			refuse(w, http.StatusConflict, key+" has already been taken")
			return
		}
	}
	maps.Copy(made, body)
	answer(w, http.StatusCreated, f.put(id, rest, made))
}

func levelNames() map[int]string {
	return map[int]string{0: "No one", 30: "Developers + Maintainers", 40: "Maintainers"}
}

// said is a note of the account's.
func (f *fake) said(body object) object {
	n := object{"internal": body["internal"] == true, "body": body["body"], "author": person(f.world.Token().Account)}
	if at, ok := body["created_at"]; ok && f.owner50 {
		n["created_at"], n["updated_at"] = at, at
	}
	return n
}

func (f *fake) createItem(w http.ResponseWriter, id int64, collection string, body object) {
	all := f.shelfOf(id)
	iid := 0
	for _, o := range all[collection] {
		iid = max(iid, o["iid"].(int))
	}
	iid++
	if asked, ok := body["iid"].(float64); ok && f.owner50 && collection == "issues" {
		iid = int(asked)
	}
	source := body["source_branch"]
	for _, o := range all[collection] {
		if o["iid"] == iid || source != nil && o["source_branch"] == source && o["state"] == "opened" {
			refuse(w, http.StatusConflict, "Duplicated issue")
			return
		}
	}
	more := object{"author": person(f.world.Token().Account), "title": body["title"], "description": body["description"], "confidential": body["confidential"] == true}
	if labels, ok := body["labels"].(string); ok {
		more["labels"] = strings.Split(labels, ",")
	}
	for _, m := range all["milestones"] {
		if fmt.Sprint(m["id"]) == fmt.Sprint(body["milestone_id"]) {
			more["milestone"] = object{"title": m["title"]}
		}
	}
	if due, ok := body["due_date"]; ok {
		more["due_date"] = due
	}
	if at, ok := body["created_at"]; ok && f.owner50 && collection == "issues" {
		more["created_at"] = at
	}
	if source != nil {
		more["source_branch"], more["target_branch"], more["sha"] = source, body["target_branch"], f.branches[source.(string)]
		more["draft"] = strings.HasPrefix(body["title"].(string), "Draft:")
	}
	f.mu.Unlock()
	made := f.item(id, collection, iid, more)
	f.mu.Lock()
	answer(w, http.StatusCreated, made)
}

// edit changes something.
func (f *fake) edit(w http.ResponseWriter, id int64, rest string, body object) {
	o := f.shelfOf(id).one(rest)
	if o == nil {
		refuse(w, http.StatusNotFound, "404 Not found")
		return
	}
	if body["state_event"] == "close" {
		o["state"] = "closed"
		if at := body["updated_at"]; o["closed_at"] == nil && strings.Contains(rest, "issues/") {
			o["closed_by"], o["closed_at"] = person(f.world.Token().Account), f.stamp()
			if at != nil && f.owner50 {
				o["closed_at"] = at
			}
		}
		f.put(id, rest+"/resource_state_events", object{"user": person(f.world.Token().Account), "state": "closed"})
	}
	for _, key := range []string{"discussion_locked", "description"} {
		if body[key] != nil {
			o[key] = body[key]
		}
	}
	f.touch(id, rest)
	answer(w, http.StatusOK, o)
}

func (f *fake) editProject(w http.ResponseWriter, r *http.Request) {
	repo, ok := f.find(w, r)
	if !ok {
		return
	}
	f.mu.Lock()
	f.settings[repo.ID] = decoded(r)
	f.mu.Unlock()
	answer(w, http.StatusOK, f.render(repo))
}

func (f *fake) store(w http.ResponseWriter, r *http.Request, id int64) {
	file, header, err := r.FormFile("file")
	if err != nil {
		refuse(w, http.StatusBadRequest, "file is missing")
		return
	}
	content, _ := io.ReadAll(file)
	f.lastID++
	path := fmt.Sprintf("uploads/%032x/%s", f.lastID, header.Filename)
	f.uploads[fmt.Sprint(id, "/", path)] = string(content)
	answer(w, http.StatusCreated, object{"alt": header.Filename, "url": "/" + path, "full_path": fmt.Sprintf("/-/project/%d/%s", id, path)})
}

func (f *fake) listBranches(w http.ResponseWriter, r *http.Request) {
	all := []any{}
	for name, commit := range f.branches {
		all = append(all, object{"name": name, "commit": object{"id": commit}})
	}
	page(w, r, all)
}
