// The pinned source of GitLab's recorded answers: the test data of its Go client (Apache-2.0). See ../../recordings.sh.
module github.com/backstay/backstay/test/recordings/gitlab

go 1.26.0

require gitlab.com/gitlab-org/api/client-go v1.46.0
