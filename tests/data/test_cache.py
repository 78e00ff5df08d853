"""Folders that several processes make at once."""

from lstm_jax.data.cache import written_beside


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_another_process_made_meanwhile_stays(tmp_path):
    """It may be read already: in its place there is never nothing, nor another."""
    target = tmp_path / "set"
    with written_beside(target) as ours:
        (ours / "ours").touch()
        with written_beside(target) as theirs:
            (theirs / "theirs").touch()
        before = target.stat().st_ino
    assert target.stat().st_ino == before and names(target) == ["theirs"]
    assert names(tmp_path) == ["set"]


def test_what_was_there_before_is_replaced(tmp_path):
    target = tmp_path / "set"
    for name in ("stale", "new"):
        with written_beside(target) as folder:
            (folder / name).touch()
    assert names(target) == ["new"] and names(tmp_path) == ["set"]
