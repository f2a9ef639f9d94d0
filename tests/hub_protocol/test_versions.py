"""When a commit is a version, what main shows, and what a name means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.in_process import CARD, CONFIG, WEIGHTS, Hub, hub, in_files


def test_a_commit_is_named_for_its_versions_digest(here: Hub, first: dict[str, bytes]) -> None:
    here.create("team/x")
    oid = here.committed("team/x", first)
    version = here.registry.show("x@1").version
    assert version.digest.hex[:40] == oid == here.sha("team/x") == here.sha("team/x", "v1")


def test_names_that_differ_in_capitals_alone_do_not_come_together(here: Hub, first: dict[str, bytes]) -> None:
    """Where capitals do not count the version could not be pulled; as a file in place of another one may come."""
    here.create("team/x")
    here.committed("team/x", first)
    for clashing in ({CONFIG.upper(): b"{}"}, {"readme.md": b"# x"}):
        answer = here.commit("team/x", clashing)
        assert (answer.status_code, "capitals" in answer.text) == (400, True), answer.text
    assert here.announce("team/x", {CARD: b"a", "readme.md": b"b"}).status_code == 400
    assert here.files("team/x") == sorted(first)
    here.committed("team/x", {"readme.md": b"# x"}, deleted=(CARD,))
    assert here.files("team/x") == sorted({*first, "readme.md"} - {CARD})


def test_what_the_command_line_pushes_is_there_too(here: Hub, tmp_path: Path, first: dict[str, bytes]) -> None:
    pushed = here.registry.push(tmp_path / "first", name="x", alias="production")
    assert here.sha("team/x", "production") == pushed.version.digest.hex[:40]
    assert sorted(here.files("team/x")) == sorted(first)
    assert here.committed("team/x", first) == here.sha("team/x")
    assert here.tags("team/x") == ["v1"]


def test_cards_and_folders_make_no_version(here: Hub, first: dict[str, bytes]) -> None:
    here.create("team/x")
    made = here.committed("team/x", first)
    card = here.committed("team/x", {CARD: b"# other", "notes/a.txt": b"a"})
    assert here.tags("team/x") == ["v1"]
    assert here.sha("team/x") == card != made == here.sha("team/x", "v1")
    assert here.read("team/x", CARD) == b"# other"
    assert here.read("team/x", CARD, "v1") == first[CARD]
    back = here.committed("team/x", {CARD: first[CARD]}, deleted=("notes/a.txt",))
    assert here.files("team/x") == sorted(first)
    assert back not in (made, card)


def test_of_folders_to_delete_the_one_that_is_named_goes(here: Hub, first: dict[str, bytes]) -> None:
    """A hidden one is not the one without its dot."""
    here.create("team/x")
    here.committed("team/x", {**first, **{f"{folder}/a.txt": b"a" for folder in (".eval_results", "eval_results", ".hidden", "a")}})
    assert here.commit("team/x", {}, folders=("hidden",), title="missing").status_code == 404
    here.committed("team/x", {}, folders=(".eval_results/", ".hidden"), title="hidden ones")
    assert here.files("team/x") == sorted([*first, "a/a.txt", "eval_results/a.txt"])
    here.committed("team/x", {}, folders=("./a/",), title="one")
    assert here.files("team/x") == sorted([*first, "eval_results/a.txt"])


@pytest.mark.parametrize("everything", [".", "./", "/", ""])
def test_all_folders_are_deleted_by_their_root(here: Hub, everything: str) -> None:
    here.create("team/x")
    here.committed("team/x", {".a/b.txt": b"a", "c.txt": b"c"})
    here.committed("team/x", {}, folders=(everything,), title="nothing left")
    assert here.files("team/x") == []


def test_a_new_version_keeps_the_side_files(here: Hub, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    here.create("team/x")
    here.committed("team/x", {**first, "notes/a.txt": b"a"})
    here.committed("team/x", {WEIGHTS: second[WEIGHTS]})
    assert here.tags("team/x") == ["v1", "v2"]
    assert here.files("team/x") == sorted([*first, "notes/a.txt"])
    assert here.read("team/x", WEIGHTS, "v1") == first[WEIGHTS]


def test_a_version_pushed_elsewhere_is_what_main_shows(
    here: Hub, tmp_path: Path, first: dict[str, bytes], second: dict[str, bytes]
) -> None:
    here.create("team/x")
    here.committed("team/x", {**first, "notes/a.txt": b"a"})
    pushed = here.registry.push(tmp_path / "second", name="x")
    assert here.sha("team/x") == pushed.version.digest.hex[:40]
    assert here.files("team/x") == sorted(second)
    titles = [each["title"] for each in here.get("/api/models/team/x/commits/main")]
    assert titles == ["version 2", "a commit", "initial commit"]


def test_a_yanked_version_is_not_main_and_can_be_named(here: Hub, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    here.create("team/x")
    here.committed("team/x", first)
    oid = here.committed("team/x", second)
    here.registry.yank("x@2", "diverged")
    assert here.sha("team/x") == here.sha("team/x", "v1")
    assert here.sha("team/x", "v2") == here.sha("team/x", oid) == oid
    answer = here.ask("GET", "/api/models/team/x/revision/v2")
    assert answer.headers["x-hf-warning"] == "yanked; team/x@2 is yanked: diverged"
    assert here.read("team/x.v2", WEIGHTS) == second[WEIGHTS]


def test_a_whole_model_is_no_version_and_not_taken_for_one(here: Hub, first: dict[str, bytes]) -> None:
    """Beside an adapter it is a side file; in a sub-folder too."""
    here.create("team/x")
    before = here.sha("team/x")
    shards = ("model.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin")
    for name in shards:
        for answer in (here.announce("team/x", {"config.json": b"{}", name: b"weights"}), here.commit("team/x", {name: b"w"})):
            if name != "pytorch_model.bin" or "/preupload/" in str(answer.url):
                assert (answer.status_code, answer.json()["code"]) == (400, "no-config"), answer.text
                assert f"{name} is a whole model" in answer.headers["x-error-message"]
    assert here.sha("team/x") == before
    here.committed("team/x", {"config.json": b"{}", "checkpoint-1/model.safetensors": b"weights"}, title="side files")
    assert here.announce("team/x", {CONFIG: first[CONFIG], WEIGHTS: first[WEIGHTS]}).status_code == 200
    assert here.announce("team/x", {"model.safetensors": b"weights"}).status_code == 200
    here.committed("team/x", {**first, "model.safetensors": b"weights"}, title="all")
    assert here.tags("team/x") == ["v1"]
    assert here.commit("team/x", {"model-00001-of-00002.safetensors": b"w"}, title="more").status_code == 200


def test_what_was_a_version_once_is_not_said_to_be_main_now(
    here: Hub, first: dict[str, bytes], second: dict[str, bytes]
) -> None:
    """Whoever goes back is told how; a success would leave them with what they went back from."""
    here.create("team/x")
    here.committed("team/x", first)
    newest = here.committed("team/x", second)
    answer = here.commit("team/x", {**first, "notes/a.txt": b"a"}, title="back")
    assert (answer.status_code, answer.json()["code"]) == (409, "older-content")
    assert "version 1 of team/x already, and main is version 2" in answer.headers["x-error-message"]
    assert here.sha("team/x") == newest
    assert here.tags("team/x") == ["v1", "v2"]
    here.registry.yank("x@2", "a test")
    assert here.committed("team/x", {**first, "notes/a.txt": b"a"}, title="back") == here.sha("team/x")
    here.registry.yank("x@1", "a test")
    answer = here.commit("team/x", first, title="once more")
    assert (answer.status_code, answer.json()["code"]) == (409, "older-content")
    assert "adapters unyank" in answer.headers["x-error-message"]


def test_what_is_yanked_is_said_to_be_yanked(here: Hub, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    """Nothing came after it that could be yanked too."""
    here.create("team/x")
    here.committed("team/x", first)
    here.committed("team/x", second)
    here.registry.yank("x@2", "a test")
    answer = here.commit("team/x", second, title="once more")
    assert (answer.status_code, answer.json()["code"]) == (409, "older-content")
    said = answer.headers["x-error-message"]
    assert "this is version 2 of team/x already, which is yanked" in said
    assert "adapters unyank team/x@2" in said
    assert "yank what came after" not in said
    here.registry.unyank("x@2")
    here.registry.yank("x@1", "a test")
    said = here.commit("team/x", first, title="back").headers["x-error-message"]
    assert "version 1 of team/x already, which is yanked, and main is version 2" in said
    assert "adapters unyank team/x@1" in said
    assert here.tags("team/x") == ["v1", "v2"]


def test_a_tag_does_not_move(here: Hub, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    """Nobody makes an alias of its name in whatever spelling, nor a tag of an alias's; by another door it stays what it was."""
    here.create("team/x")
    old = here.committed("team/x", first)
    new = here.committed("team/x", second)
    tag, branch = "/api/models/team/x/tag/v1", "/api/models/team/x/branch"
    assert here.ask("POST", f"{branch}/prod", json={"startingPoint": "v2"}).status_code == 201
    for name in ("prod", "Prod"):
        answer = here.ask("POST", tag, json={"tag": name})
        assert (answer.status_code, answer.json()["code"]) == (403, "reserved-name")
        assert "prod is an alias" in answer.headers["x-error-message"]
    assert here.ask("POST", tag, json={"tag": "stable"}).status_code == 201
    for name in ("stable", "Stable"):
        answer = here.ask("POST", f"{branch}/{name}", json={"startingPoint": "v2"})
        assert (answer.status_code, answer.json()["code"]) == (403, "reserved-name")
        assert "stable is a tag" in answer.headers["x-error-message"]
    assert here.tags("team/x") == ["stable", "v1", "v2"]
    assert [each["name"] for each in here.get("/api/models/team/x/refs")["branches"]] == ["main", "prod"]
    here.ask("PUT", "/v1/adapters/team/x/aliases/Stable", json={"version": 2})
    assert here.sha("team/x", "stable") == here.sha("team/x", "refs%2Ftags%2Fstable") == old
    assert here.sha("team/x", "refs%2Fheads%2Fstable") == here.sha("team/x", "prod") == new


@pytest.mark.parametrize("kind", ["branch/dev", "tag/main"])
def test_what_has_no_version_has_no_branch_and_no_tag_and_that_is_no_conflict(here: Hub, kind: str) -> None:
    """Clients take a conflict for a name that is there already, and go on."""
    here.create("team/x")
    answer = here.ask("POST", f"/api/models/team/x/{kind}", json={"tag": "release"})
    assert (answer.status_code, answer.json()["code"]) == (422, "no-version")


def test_what_is_refused_does_not_tell_where_it_lay(here: Hub, first: dict[str, bytes]) -> None:
    here.create("team/x")
    broken = json.dumps({**json.loads(first[CONFIG]), "r": 64, "lora_alpha": "x"}).encode()
    answer = here.commit("team/x", {**first, CONFIG: broken})
    assert answer.status_code in (400, 422)
    assert str(here.store) not in answer.text + answer.headers["x-error-message"]


def test_the_same_request_again_does_nothing(here: Hub, first: dict[str, bytes]) -> None:
    """Also one that deletes, and one that names the commit before as its parent."""
    here.create("team/x")
    parent = here.sha("team/x")
    oid = here.committed("team/x", first, parent=parent)
    assert here.committed("team/x", first, parent=parent) == oid
    here.committed("team/x", {"notes.log": b"1"}, title="notes")
    gone = here.committed("team/x", {}, deleted=("notes.log",), title="no notes")
    assert here.committed("team/x", {}, deleted=("notes.log",), title="no notes") == gone
    assert here.commit("team/x", {}, deleted=("notes.log",), title="once more").status_code == 404
    commits = here.get("/api/models/team/x/commits/main")
    assert [each["title"] for each in commits] == ["no notes", "notes", "a commit", "initial commit"]


def test_an_upload_that_was_given_up_leaves_nothing(here: Hub, first: dict[str, bytes]) -> None:
    here.create("team/x")
    before = here.committed("team/x", first)
    config = json.dumps({**json.loads(first[CONFIG]), "lora_alpha": 8}).encode()
    here.announce("team/x", {CONFIG: config, "tokenizer.json": b"{}"})
    here.committed("team/x", {CONFIG: config})
    assert here.sha("team/x") == before
    here.announce("team/x", {"vocab.json": b"{}"})
    here.committed("team/x", {"vocab.json": b"{}"})
    assert here.tags("team/x") == ["v1", "v2"]
    assert here.read("team/x", CONFIG) == first[CONFIG]


def test_what_a_check_refuses_is_not_there(here: Hub, first: dict[str, bytes]) -> None:
    here.create("team/x")
    before = here.committed("team/x", first)
    broken = json.dumps({**json.loads(first[CONFIG]), "r": 64}).encode()
    answer = here.commit("team/x", {CONFIG: broken, CARD: b"# other"})
    assert answer.status_code in (400, 422)
    assert "64" in answer.headers["x-error-message"]
    assert here.sha("team/x") == before
    assert here.read("team/x", CARD) == first[CARD]
    gone = here.commit("team/x", {}, deleted=(WEIGHTS,))
    assert gone.status_code == 422
    assert here.sha("team/x") == before


def test_a_merged_checkpoint_takes_cards_and_keeps_its_weights(here: Hub, tmp_path: Path, first: dict[str, bytes]) -> None:
    from safetensors.torch import save_file
    from torch import ones

    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "llama"}')
    save_file({"model.layers.0.self_attn.q_proj.weight": ones(64, 64)}, base / "model.safetensors")
    here.create("team/x")
    here.committed("team/x", first)
    here.registry.merge(base, [str(tmp_path / "first")], tmp_path / "merged", name="whole")
    before = here.sha("team/whole")
    assert here.commit("team/whole", {"model.safetensors": b"other"}).status_code == 422
    assert here.sha("team/whole") == before
    here.committed("team/whole", {CARD: b"# a model"})
    assert here.read("team/whole", CARD) == b"# a model"
    assert here.tags("team/whole") == ["v1"]
    info = here.get("/api/models/team/whole")
    assert info["library_name"] == "transformers"


def test_a_base_that_has_another_name_here_is_served_by_its_own(here: Hub, tmp_path: Path) -> None:
    """That field alone; the commit as it was pushed stays what it was."""
    directory = write_one(tmp_path / "copy", base_model_name_or_path="mirror/gpt2-copy")
    files = in_files(directory)
    here.create("team/x")
    oid = here.committed("team/x", files)
    assert here.read("team/x", CONFIG) == files[CONFIG]
    here.registry.alias_base("mirror/gpt2-copy", "openai-community/gpt2")
    served = here.sha("team/x")
    assert served != oid
    assert here.read("team/x", CONFIG) == files[CONFIG].replace(b"mirror/gpt2-copy", b"openai-community/gpt2")
    for name in ("team/x.v1", "team/x"):
        assert here.get(f"/api/models/{name}/revision/v1")["sha"] == served
    assert here.ask("GET", f"/team/x/resolve/{oid}/{CONFIG}").content == files[CONFIG]
    assert here.sha("team/x", served[:12]) == served
    assert here.committed("team/x", files) == served
    assert here.committed("team/x", {CARD: b"# other"}, parent=served)
    here.registry.alias_base("mirror/gpt2-copy", None)
    assert here.sha("team/x", "v1") == oid


def test_the_store_is_sound_and_nothing_of_it_is_collected(here: Hub, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    here.create("team/x")
    here.committed("team/x", {**first, "notes/a.txt": b"a"})
    here.committed("team/x", {**second, "notes/b.txt": b"b"})
    here.registry.gc(grace=0.0)
    assert not here.registry.doctor(deep=True).problems
    assert here.read("team/x", "notes/a.txt") == b"a"
    assert here.read("team/x", WEIGHTS, "v1") == first[WEIGHTS]
    head = here.sha("team/x")
    here.registry.rebuild()
    assert here.sha("team/x") == head


def test_no_worker_answers_what_is_no_longer_so(tmp_path: Path, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    """Once a move, a commit, a yank or a hiding was acknowledged by one, every other knows of it."""
    one = hub(tmp_path / "store", anonymous_read=True)
    other = Hub(one.store, hub(tmp_path / "store", anonymous_read=True, tokens=False).client, one.tokens)
    one.create("team/x")
    one.committed("team/x", first)
    move = "/v1/adapters/team/x/aliases/production"
    assert one.ask("PUT", move, json={"version": 1}).status_code == 200
    old = other.sha("team/x", "production")
    new = one.committed("team/x", second)
    assert other.sha("team/x") == new
    assert other.sha("team/x", "production") == old
    assert one.ask("PUT", move, json={"version": 2}).status_code == 200
    assert other.sha("team/x", "production") == other.sha("team/x.production") == new
    assert one.ask("PUT", "/v1/adapters/team/x/versions/2/yank", json={"reason": "bad"}).status_code == 200
    assert other.sha("team/x") == old
    assert other.ask("GET", "/api/models/team/x/revision/main", who=None).status_code == 200
    assert one.ask("PUT", "/api/models/team/x/settings", json={"visibility": "private"}).json()["private"] is True
    assert other.ask("GET", "/api/models/team/x/revision/main", who=None).status_code == 404
