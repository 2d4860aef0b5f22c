"""Vets the GitLab of the tests with python-gitlab, a client that knows the real one.

Usage: vet.py PATH-OF-THE-EXAMPLE-GITLAB. Whatever python-gitlab cannot do here is the test GitLab's fault.
"""

import contextlib
import subprocess
import sys

import gitlab

ACCESS_TOKEN = "glpat-vetting"
REGISTRATION_TOKEN = "GR1348941vetting"
PAGE = 20


@contextlib.contextmanager
def served(binary, *words):
    """Starts the test GitLab, yields a client with an administrator's access token, and ends it again."""
    command = [binary, "--port", "0", "--quiet", "--access-token", ACCESS_TOKEN]
    command += ["--registration-token", REGISTRATION_TOKEN, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().split(" at ")[1].strip()
            yield gitlab.Gitlab(url, private_token=ACCESS_TOKEN)
        finally:
            server.terminate()


def refused(status, call, *arguments, **options):
    """Makes a call that has to be refused with this status."""
    try:
        call(*arguments, **options)
    except gitlab.exceptions.GitlabError as error:
        assert error.response_code == status, (status, error.response_code, error)
        return error
    raise AssertionError(f"not refused with {status}: {call}")


def who_asks(client):
    client.auth()
    assert client.user.username == "root", client.user
    version, revision = client.version()
    assert version[0].isdigit() and revision, (version, revision)
    refused(401, gitlab.Gitlab(client.url, private_token="wrong").auth)


def create(client):
    """Creates a runner for each kind of owner, and registers one."""
    project, group = client.projects.get("a/b"), client.groups.get("a")
    runners = client.user.runners
    made = [
        runners.create({"runner_type": "instance_type", "description": "instance", "tag_list": ["x", "y"]}),
        runners.create({"runner_type": "group_type", "group_id": group.id, "description": "group"}),
        runners.create({"runner_type": "project_type", "project_id": project.id, "description": "project"}),
    ]
    for runner in made:
        assert runner.id and runner.token.startswith("glrt-"), runner
        client.runners.verify(runner.token)
    refused(400, runners.create, {"runner_type": "group_type"})
    refused(400, runners.create, {"runner_type": "nonsense"})
    refused(403, client.runners.verify, "wrong")

    registered = client.runners.create({"token": REGISTRATION_TOKEN, "description": "registered", "tag_list": ["x"]})
    assert registered.id and registered.token, registered
    refused(403, client.runners.create, {"token": "wrong"})
    return [runner.id for runner in made] + [registered.id]


def lists(client, ids):
    """Lists runners in every way, with pages and filters."""
    instance, of_group, of_project, registered = ids
    listed = lambda **options: {runner.id for runner in client.runners_all.list(get_all=True, **options)}
    assert listed() == set(ids), listed()
    assert {runner.id for runner in client.runners.all(get_all=True)} == set(ids)
    assert listed(type="group_type") == {of_group}
    assert listed(tag_list=["x", "y"]) == {instance}
    assert listed(paused=True) == set()
    assert listed(status="online") == {instance, of_group, of_project}
    assert listed(scope="shared") == {instance, registered}
    refused(400, client.runners.list, scope="nonsense")
    assert {runner.id for runner in client.runners.list(get_all=True)} == {of_group, of_project}
    project, group = client.projects.get("a/b"), client.groups.get("a")
    assert {runner.id for runner in project.runners.list(get_all=True)} == set(ids)
    assert {runner.id for runner in group.runners.list(get_all=True)} == {instance, of_group, registered}
    refused(404, client.projects.get, "no/such")
    refused(404, client.groups.get, "none")


def pages(client):
    """Follows the pages of a long list by the server's links and totals."""
    more = [client.user.runners.create({"runner_type": "instance_type"}).id for _ in range(2 * PAGE)]
    walked = client.runners_all.list(iterator=True, per_page=PAGE)
    assert (walked.current_page, walked.prev_page, walked.next_page) == (1, None, 2)
    assert (walked.per_page, walked.total_pages, walked.total) == (PAGE, 3, 2 * PAGE + 4)
    assert len({runner.id for runner in walked}) == walked.total
    assert (walked.current_page, walked.prev_page, walked.next_page) == (3, 2, None)
    assert len(client.runners_all.list(page=2, per_page=PAGE, get_all=False)) == PAGE
    for runner in more:
        client.runners.delete(runner)


def one(client, ids):
    """Shows, changes, pauses and resumes a runner."""
    instance, _, of_project, _ = ids
    runner = client.runners.get(instance)
    assert (runner.description, runner.tag_list) == ("instance", ["x", "y"]), runner
    assert not runner.paused and runner.runner_type == "instance_type"
    runner.description, runner.tag_list = "changed", ["z"]
    runner.save()
    assert (runner.description, client.runners.get(instance).tag_list) == ("changed", ["z"])
    for name, value in (("paused", True), ("active", True)):
        setattr(runner, name, value)
        runner.save()
        runner = client.runners.get(instance)
        assert runner.paused == (name == "paused"), runner
    error = refused(400, client.runners.update, instance, {"maximum_timeout": 1})
    assert "maximum_timeout" in error.error_message, error
    assert client.runners.get(of_project).jobs.list(get_all=True) == []
    refused(404, client.runners.get, 10**9)


def projects(client, ids):
    """Assigns a runner to a second project and takes it back."""
    runner = ids[2]
    second = client.projects.get("a/c")
    assert second.runners.create({"runner_id": runner}).id == runner
    refused(400, second.runners.create, {"runner_id": runner})
    assert {project["path"] for project in client.runners.get(runner).projects} == {"b", "c"}
    second.runners.delete(runner)
    refused(404, second.runners.delete, runner)


def resets(client, ids):
    """Replaces tokens, for which python-gitlab has no names of its own."""
    runner = ids[0]
    first = client.http_post(f"/runners/{runner}/reset_authentication_token")["token"]
    second = client.http_post("/runners/reset_authentication_token", post_data={"token": first})["token"]
    refused(403, client.runners.verify, first)
    client.runners.verify(second)
    assert second != first
    assert client.http_post("/runners/reset_registration_token")["token"] != REGISTRATION_TOKEN
    refused(403, client.runners.create, {"token": REGISTRATION_TOKEN})


def deletions(client, ids):
    instance, of_group, of_project, registered = ids
    client.runners.delete(instance)
    refused(404, client.runners.delete, instance)
    client.runners.get(of_group).delete()
    token = client.http_post(f"/runners/{of_project}/reset_authentication_token")["token"]
    client.http_delete("/runners", post_data={"token": token}, query_data={"token": token})
    client.runners.delete(registered)
    assert client.runners_all.list(get_all=True) == []


def main(binary):
    with served(binary, "--version", "17", "--group", "a", "--project", "a/b", "--project", "a/c") as client:
        who_asks(client)
        ids = create(client)
        lists(client, ids)
        pages(client)
        one(client, ids)
        projects(client, ids)
        resets(client, ids)
        deletions(client, ids)
    print("python-gitlab", gitlab.__version__, "did all it wanted to")


if __name__ == "__main__":
    main(sys.argv[1])
