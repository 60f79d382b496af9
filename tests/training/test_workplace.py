from pathlib import Path

import pytest

from ragqa.errors import InputError, StorageError
from ragqa.training.workplace import check_out, library_writes


@pytest.mark.parametrize("out", [".", "/"])
def test_an_out_that_names_no_folder_is_refused(out: str) -> None:
    with pytest.raises(InputError, match="names no folder; give --out a name, such as embedders/mine"):
        check_out(Path(out), "ragqa adapter", resume=False, overwrite=True)


def test_errors_of_ragqas_own_pass_and_others_are_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^no such thing$"), library_writes(tmp_path):
        raise InputError("no such thing")
    with (
        pytest.raises(StorageError, match=r"cannot be written \(no room; .* MB free there\)"),
        library_writes(tmp_path),
    ):
        raise RuntimeError("no room")
