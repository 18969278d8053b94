import importlib

import pytest
from huggingface_hub import HfApi, get_session, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError

from fast_jukebox.hub import HubError, clear_hub_errors

# The client's HTTP library goes by another name in each of its great versions.
http = importlib.import_module(type(get_session()).__module__.split(".")[0])


def fetch(name="ann/model", filename="config.json", **kwargs):
    with clear_hub_errors(name, kwargs.get("revision")):
        return hf_hub_download(name, filename, **kwargs)


@pytest.fixture
def model(hub):
    hub.put("ann/model", {"config.json": b"{}"})
    hub.put("bob/private", {"config.json": b"{}"}, private=True)
    hub.put("bob/gated", {"config.json": b"{}"}, gated=True)
    return hub


def test_what_goes_well_is_left_alone(model):
    assert fetch().endswith("config.json")


@pytest.mark.parametrize("name", ["ann/modle", "bob/private"])
@pytest.mark.parametrize("token", [None, False])
def test_a_repository_that_cannot_be_seen(model, name, token):
    with pytest.raises(
        HubError, match=rf"Cannot load the model `{name}`: .*{model.url}.*Check the name.*`token=`"
    ) as it:
        fetch(name, token=token)
    assert it.value.__cause__ is not None


def test_a_gated_repository(model):
    with pytest.raises(HubError, match=rf"`bob/gated`: its owner grants access on request.*{model.url}/bob/gated"):
        fetch("bob/gated")


def test_a_token_that_is_none(model):
    with pytest.raises(HubError, match="answered 401.*Log in with `hf auth login` or pass a valid `token=`"):
        fetch(token="nonsense")


def test_a_revision_that_is_not_there(model):
    with pytest.raises(
        HubError, match="it has no revision 'v9'. `revision` must be a branch, a tag or a complete commit"
    ):
        fetch(revision="v9")


def test_a_file_that_is_not_there(model):
    with pytest.raises(HubError, match="a file of it is not there.*weights"):
        fetch(filename="weights")


def test_a_right_that_is_missing(model):
    told = r"Cannot push the model `bob/model`: .*answered 403.*token must have the right"
    with pytest.raises(HubError, match=told), clear_hub_errors("bob/model", verb="push"):
        HfApi().create_repo("bob/model")


def test_a_busy_hub(model):
    model.fail("GET", "/tree/", times=99, status=429)
    told = r"answered 429.*too many requests. Wait a few minutes"
    with pytest.raises(HubError, match=told), clear_hub_errors("ann/model"):
        list(HfApi().list_repo_tree("ann/model"))


def test_a_broken_hub(model):
    model.fail("HEAD", "/resolve/", times=99, status=503)
    with pytest.raises(HubError, match=r"answered 503.*Try again later"):
        fetch()


def test_a_broken_connection(model):
    model.fail("GET", "/resolve/", times=99, break_after=0)
    with pytest.raises(HubError, match=r"the connection to http.*failed.*Check the network and try again"):
        fetch()


def test_no_connection(model, monkeypatch):
    model.server.shutdown()
    model.server.server_close()
    try:
        with pytest.raises(HubError, match="the connection to http.* failed"):
            fetch()
    finally:
        model.thread.join()


def test_offline_and_not_in_the_cache(model, monkeypatch):
    with pytest.raises(
        HubError, match="`ann/model`: it is not, or not completely, in the cache .*Load it once with the net"
    ):
        fetch(local_files_only=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    told = "revision 'v1' of it is not, or not completely"
    with pytest.raises(HubError, match=told), clear_hub_errors("ann/model", "v1"):
        snapshot_download("ann/model", revision="v1")
    told = "Cannot push the dataset `ann/songs`: this machine is offline"
    with pytest.raises(HubError, match=told), clear_hub_errors("ann/songs", verb="push", kind="dataset"):
        HfApi().create_repo("ann/songs")


@pytest.mark.parametrize("error", [ValueError("bad"), TypeError("bad"), KeyError("bad"), OSError("disk full")])
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(type(error)) as raised, clear_hub_errors("ann/model"):
        raise error
    assert raised.value is error


def test_what_was_being_handled_before_explains_nothing():
    """Who loads another model because the first is not there gets that one's own error."""
    with pytest.raises(OSError, match="disk full") as raised:
        try:
            raise http.ConnectError("no route")
        except http.ConnectError:
            with clear_hub_errors("ann/other"):
                raise OSError("disk full")  # noqa: B904
    assert not isinstance(raised.value, HubError)


def test_a_cause_far_down_is_found():
    with pytest.raises(HubError, match="connection.*no route"), clear_hub_errors("ann/model"):
        try:
            raise http.ConnectError("no route")
        except http.ConnectError as error:
            raise RuntimeError("while sending") from error


def test_an_error_that_is_clear_already_is_not_explained_again():
    told = "^Cannot load the model `inner`"
    with pytest.raises(HubError, match=told), clear_hub_errors("outer"), clear_hub_errors("inner"):
        raise EntryNotFoundError("it is not there")
