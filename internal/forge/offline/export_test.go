package offline

import "github.com/backstay/backstay/internal/forge/neutral"

// Render renders a text of the repository github.com/acme/api, which has issue 1 and pull request 2.
func Render(text string) string { return string(newMarkdown().render(text, testPlaces())) }

func testPlaces() *places {
	p := newPlaces("github.com/acme/api")
	p.items[sortIssue].add(1)
	p.items[sortPull].add(2)
	p.files["https://github.com/user-attachments/assets/u1"] = "files/0123/u1.png"
	p.files["https://github.com/user-attachments/assets/u2"] = "files/0123/u2.bin"
	p.files["/uploads/0a/b.png"] = "files/0456/b.png"
	return p
}

// FileName is the name a file gets.
func FileName(name, mediaType string) string {
	return fileName(&neutral.File{Name: name, Type: mediaType})
}

// Clean is clean.
func Clean(s string) string { return clean(s) }
