# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1reward_trainer.data.media import Beside, by_number, evenly, relative_paths
from r1reward_trainer.data.objects import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("data/pictures/a.png", "data/pictures/sub/a.png", "data/b.png", "secret.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def beside(folder: Path, prefix: str | None = None) -> Beside:
    return Beside(Folder(folder), "data/rows.jsonl", prefix)


def test_a_relative_path_is_taken_from_the_files_folder(folder: Path) -> None:
    assert beside(folder).image("pictures/a.png") == b"data/pictures/a.png"
    with pytest.raises(LookupError, match=r"there is no .*data/a\.png"):
        beside(folder).image("a.png")


def test_a_prefix_stands_for_the_folder(folder: Path) -> None:
    assert beside(folder, "/mnt/x/").image("/mnt/x/b.png") == b"data/b.png"
    assert beside(folder, "vl/img").image("vl/img/pictures/a.png") == b"data/pictures/a.png"


def test_an_absolute_path_is_found_by_its_last_parts_if_only_one_file_can_be_meant(
    folder: Path,
) -> None:
    files = beside(folder)
    assert files.image("/home/me/data/b.png") == b"data/b.png"
    with pytest.raises(LookupError, match=r"neither .* nor a file at its last parts"):
        files.image("/home/me/data/absent.png")
    (folder / "data/a.png").write_bytes(b"another")
    with pytest.raises(LookupError, match=r"may be any of pictures/a\.png, a\.png .*imagePrefix"):
        beside(folder).image("/home/me/pictures/a.png")
    # What was before the first one found stands for the folder from then on.
    assert files.image("/home/me/data/pictures/a.png") == b"data/pictures/a.png"


def test_two_paths_of_another_machine_are_never_one_file(folder: Path) -> None:
    files = beside(folder)
    assert files.image("/home/me/cats/b.png") == b"data/b.png"
    both = r"/home/me/dogs/b\.png and /home/me/cats/b\.png would both be .*data/b\.png.*imagePrefix"
    with pytest.raises(LookupError, match=both):
        files.image("/home/me/dogs/b.png")
    for same in ("/home/me/cats/b.png", "/home/me/cats//b.png", "b.png"):
        assert files.image(same) == b"data/b.png"
    files.image("/home/me/cats/pictures/sub/a.png")  # whose folder is known by now
    with pytest.raises(LookupError, match="would both be"):
        files.image("/mnt/pictures/sub/a.png")
    files = beside(folder, "/home/me/dogs")
    assert files.image("/home/me/cats/b.png") == files.image("/home/me/dogs/b.png")


def test_two_videos_of_another_machine_are_never_one_folder(folder: Path) -> None:
    files = beside(folder)
    assert files.frames("/home/me/pictures", 4) == files.frames("/home/me/pictures/", 4) != []
    with pytest.raises(LookupError, match="would both be"):
        files.frames("/home/you/pictures", 4)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "pictures/../../secret.png",
        "/mnt/../secret.png",
        "/mnt/x/../secret.png",
        "s3://bucket/x.png",
        "file:///etc/passwd.png",
        "a\x00.png",
        "half a pair \ud800.png",
        "x" * 600 + ".png",
        "",
        "/",
    ],
)
def test_no_path_leaves_the_folder(folder: Path, path: str) -> None:
    for prefix in (None, "/mnt/x/", "/mnt/"):
        with pytest.raises(LookupError):
            beside(folder, prefix).image(path)


@given(st.text(st.sampled_from("ab./\\:~")), st.none() | st.text(st.sampled_from("ab./")))
def test_whatever_a_path_is_its_candidates_stay_below(path: str, prefix: str | None) -> None:
    root = Path("/root/folder")
    for candidate in relative_paths(path, prefix):
        assert not candidate.startswith("/")
        assert (root / candidate).resolve().is_relative_to(root)


def test_frames_are_sorted_by_number_and_evenly_chosen(tmp_path: Path) -> None:
    clip = tmp_path / "video/clip"
    clip.mkdir(parents=True)
    for number in range(100):
        (clip / f"frame_{number}.jpg").write_bytes(b"%d" % number)
    (clip / "notes.txt").write_bytes(b"no frame")
    (clip / "thumbs").mkdir()
    (clip / "thumbs/0.jpg").write_bytes(b"no frame either")
    files = Beside(Folder(tmp_path), "bench.jsonl")
    assert files.frames("video/clip", 4) == [b"0", b"33", b"66", b"99"]
    assert files.videos_cut == 1
    assert len(files.frames("video/clip", 1000)) == 32
    assert files.videos_cut == 1, "no setting has more than 32"
    assert files.frames("/home/me/alignment/video/clip", 1) == [b"0"]
    with pytest.raises(LookupError, match="there is no"):
        files.frames("video/none", 4)


def test_numbers_in_names_are_compared_as_numbers() -> None:
    names = ["c/10.jpg", "c/9.jpg", "c/frame2-1.jpg", "c/frame1-20.jpg"]
    assert sorted(names, key=by_number) == [
        "c/frame1-20.jpg",
        "c/frame2-1.jpg",
        "c/9.jpg",
        "c/10.jpg",
    ]


@given(st.integers(0, 50), st.integers(1, 40))
def test_an_even_choice_has_the_ends_and_no_item_twice(items: int, most: int) -> None:
    found = evenly(range(items), most)
    assert len(found) == min(items, most)
    assert found == sorted(set(found))
    if items > most > 1:
        assert found == np.linspace(0, items - 1, most, dtype=int).tolist()
    if most > 1 and items:
        assert (found[0], found[-1]) == (0, items - 1)
