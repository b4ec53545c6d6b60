PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -8000;

CREATE TABLE repositories (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, description TEXT, homepage TEXT, topics TEXT, default_branch TEXT, private INTEGER, archived INTEGER
);
CREATE TABLE users (forge TEXT NOT NULL, login TEXT NOT NULL, name TEXT NOT NULL, email TEXT, url TEXT, PRIMARY KEY (forge, login, name)) WITHOUT ROWID;
CREATE TABLE labels (repository INTEGER NOT NULL REFERENCES repositories, name TEXT, color TEXT, description TEXT);
CREATE TABLE milestones (
  repository INTEGER NOT NULL REFERENCES repositories, number INTEGER, title TEXT, description TEXT, state TEXT, due TEXT, created TEXT, closed TEXT
);
CREATE TABLE items (
  id INTEGER PRIMARY KEY, repository INTEGER NOT NULL REFERENCES repositories, sort TEXT NOT NULL, number INTEGER NOT NULL, title TEXT, body TEXT,
  state TEXT NOT NULL, reason TEXT, author TEXT, created TEXT, updated TEXT, closed TEXT, closed_by TEXT, milestone TEXT, due TEXT,
  locked INTEGER, pinned INTEGER, confidential INTEGER, url TEXT,
  base TEXT, head TEXT, head_repository TEXT, base_oid TEXT, head_oid TEXT, merged TEXT, merged_by TEXT, merge_oid TEXT, draft INTEGER
);
CREATE TABLE discussions (
  id INTEGER PRIMARY KEY, repository INTEGER NOT NULL REFERENCES repositories, number INTEGER NOT NULL, title TEXT, body TEXT, state TEXT NOT NULL,
  category TEXT, answered INTEGER, votes INTEGER, author TEXT, created TEXT, updated TEXT, closed TEXT, locked INTEGER, url TEXT
);
CREATE TABLE item_labels (item INTEGER NOT NULL, label TEXT);
CREATE TABLE assignees (item INTEGER NOT NULL REFERENCES items, login TEXT);
CREATE TABLE links (item INTEGER NOT NULL REFERENCES items, sort TEXT, target TEXT);
CREATE TABLE reviews (
  id INTEGER PRIMARY KEY, item INTEGER NOT NULL REFERENCES items, state TEXT, body TEXT, author TEXT, created TEXT, oid TEXT, url TEXT
);
CREATE TABLE comments (
  id INTEGER PRIMARY KEY, item INTEGER REFERENCES items, discussion INTEGER REFERENCES discussions, review INTEGER REFERENCES reviews,
  reply_to INTEGER REFERENCES comments, body TEXT, author TEXT, created TEXT, updated TEXT, internal INTEGER, answer INTEGER, url TEXT,
  path TEXT, line INTEGER, start_line INTEGER, side TEXT, oid TEXT, hunk TEXT, resolved INTEGER, resolved_by TEXT
);
CREATE TABLE events (item INTEGER NOT NULL, kind TEXT, actor TEXT, created TEXT, text TEXT);
CREATE TABLE reactions (thing INTEGER NOT NULL, content TEXT, login TEXT, created TEXT);
CREATE TABLE releases (
  id INTEGER PRIMARY KEY, repository INTEGER NOT NULL REFERENCES repositories, tag TEXT, target TEXT, name TEXT, body TEXT, author TEXT, created TEXT,
  published TEXT, draft INTEGER, prerelease INTEGER, url TEXT
);
CREATE TABLE assets (
  release INTEGER NOT NULL REFERENCES releases, name TEXT, label TEXT, type TEXT, size INTEGER, downloads INTEGER, created TEXT, url TEXT, sha256 TEXT, reason TEXT
);
CREATE TABLE projects (
  id INTEGER PRIMARY KEY, repository INTEGER NOT NULL REFERENCES repositories, title TEXT, description TEXT, readme TEXT, owner TEXT, public INTEGER,
  closed INTEGER, created TEXT, updated TEXT, views TEXT, url TEXT
);
CREATE TABLE project_fields (project INTEGER NOT NULL REFERENCES projects, name TEXT, type TEXT, options TEXT);
CREATE TABLE project_items (
  id INTEGER PRIMARY KEY, project INTEGER NOT NULL REFERENCES projects, target TEXT, title TEXT, body TEXT, draft INTEGER, archived INTEGER, created TEXT
);
CREATE TABLE project_values (item INTEGER NOT NULL REFERENCES project_items, field TEXT, value TEXT);
CREATE TABLE files (
  repository INTEGER NOT NULL REFERENCES repositories, url TEXT, name TEXT, type TEXT, size INTEGER, sha256 TEXT, reason TEXT
);

-- Whatever has a text, by the id that all of them share.
CREATE VIEW texts (id, sort, repository, number, author, created, url, title, body) AS
  SELECT i.id, i.sort, r.name, i.number, i.author, i.created, i.url, i.title, i.body FROM items i JOIN repositories r ON r.id = i.repository
  UNION ALL SELECT d.id, 'discussion', r.name, d.number, d.author, d.created, d.url, d.title, d.body FROM discussions d JOIN repositories r ON r.id = d.repository
  UNION ALL SELECT v.id, 'review', r.name, i.number, v.author, v.created, v.url, i.title, v.body
    FROM reviews v JOIN items i ON i.id = v.item JOIN repositories r ON r.id = i.repository
  UNION ALL SELECT c.id, 'comment', r.name, i.number, c.author, c.created, c.url, i.title, c.body
    FROM comments c JOIN items i ON i.id = c.item JOIN repositories r ON r.id = i.repository
  UNION ALL SELECT c.id, 'comment', r.name, d.number, c.author, c.created, c.url, d.title, c.body
    FROM comments c JOIN discussions d ON d.id = c.discussion JOIN repositories r ON r.id = d.repository
  UNION ALL SELECT l.id, 'release', r.name, NULL, l.author, l.created, l.url, coalesce(l.name, l.tag), l.body
    FROM releases l JOIN repositories r ON r.id = l.repository
  UNION ALL SELECT p.id, 'project', r.name, NULL, p.owner, p.created, p.url, p.title, p.readme FROM projects p JOIN repositories r ON r.id = p.repository
  UNION ALL SELECT i.id, 'draft', r.name, NULL, NULL, i.created, p.url, i.title, i.body
    FROM project_items i JOIN projects p ON p.id = i.project JOIN repositories r ON r.id = p.repository WHERE i.draft;

-- Titles and bodies, whole; it holds no text of its own.
CREATE VIRTUAL TABLE search USING fts5(title, body, content = 'texts', content_rowid = 'id');
