CREATE INDEX items_by_number ON items (repository, sort, number);
CREATE INDEX comments_by_item ON comments (item);
CREATE INDEX comments_by_discussion ON comments (discussion);
CREATE INDEX reviews_by_item ON reviews (item);
CREATE INDEX events_by_item ON events (item);
CREATE INDEX item_labels_by_label ON item_labels (label);
CREATE INDEX item_labels_by_item ON item_labels (item);
CREATE INDEX reactions_by_thing ON reactions (thing);
