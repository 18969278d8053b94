import pytest
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox.hub.cards import MAX_CARD_BYTES, MAX_METADATA_CHARACTERS, load_card, require_license

CARD = "---\nlicense: mit\nmodel-index:\n- name: x\n  results: []\n---\n\n# x\n\nA model.\n"
BOMB = "a0: &a0 [x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "README.md"


def test_a_card_is_read(path):
    path.write_text(CARD)
    assert load_card(path).data.license == "mit"
    assert load_card(path).text.strip().startswith("# x")
    path.write_bytes(b"\xef\xbb\xbf" + CARD.replace("\n", "\r\n").encode())
    assert load_card(path, DatasetCard).data.license == "mit"
    path.write_text("# No metadata")
    assert load_card(path).data.to_dict() == {}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (f"{BOMB}datasets: *a11\n", r"refers to a part of itself \(`\*a0`\)"),
        ("license: &a [*a]\n", r"refers to a part of itself \(`\*a`\)"),
        ("license: [\n", "cannot be read"),
        ("\tlicense: mit\n", "cannot be read"),
        ("license: !!python/object/apply:os.system ['id']\n", "could not determine a constructor"),
        ("- a\n", "should be a dict"),
        ("model-index: 3\n", "cannot be read"),
        ("model-index: [{}]\n", "cannot be read"),
        ("x: \0\n", "special characters are not allowed"),
        (f"x: {'[' * 50_000}\n", "opens 50000 brackets"),
        (f"x: {'- ' * 30_000}\n", "cannot be read"),
        (f"x: {'a' * (MAX_METADATA_CHARACTERS + 1)}\n", f"more than {MAX_METADATA_CHARACTERS}"),
    ],
)
def test_damaged_metadata_is_refused_with_the_files_name(path, metadata, message):
    path.write_text(f"---\n{metadata}---\n# x\n")
    with pytest.raises(ValueError, match=f"(?s)README.md.*{message}"):
        load_card(path)
    with pytest.raises(ValueError, match="`license`"):
        require_license(path.parent)


def test_a_model_index_of_another_form_may_be_left_out(path):
    path.write_text(CARD.replace("name: x", "nome: x"))
    with pytest.raises(ValueError, match="README.md"):
        load_card(path)
    assert load_card(path, strict=False).data.license == "mit"


def test_other_files_are_refused(path):
    path.write_bytes(b"---\nlicense: mit\n---\n# caf\xe9\n")
    with pytest.raises(ValueError, match=r"README.md must be UTF-8"):
        load_card(path)
    path.write_bytes(bytes(MAX_CARD_BYTES + 1))
    with pytest.raises(ValueError, match=r"README.md.*more than 1048576 bytes"):
        load_card(path)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_card_or_a_clear_error(tmp_path_factory, damage):
    path = tmp_path_factory.mktemp("card") / "README.md"
    for content in (damage, b"---\n" + damage + b"\n---\n# x\n", CARD.encode()[:20] + damage + CARD.encode()[20:]):
        path.write_bytes(content)
        try:
            load_card(path)
        except ValueError as error:
            assert "README.md" in str(error)
