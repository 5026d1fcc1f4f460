import pickle

import numpy as np
import pytest

from saaa.errors import DataError
from training.ega.names import read_names


def saved(path, array, **options):
    np.save(path / "names.npy", array, **options)
    return path / "names.npy"


@pytest.mark.parametrize("pickled", [True, False])
def test_words_come_back(tmp_path, pickled):
    words = ["BOS", "sofa", "naïve", "日本"]
    path = saved(tmp_path, np.array(words, object if pickled else None), allow_pickle=pickled)
    assert read_names(path).tolist() == words


@pytest.mark.parametrize("pickled", [True, False])
def test_pairs_come_back(tmp_path, pickled):
    pairs = [("000001", "7"), ("a/b", "11")]
    path = saved(tmp_path, np.array(pairs, object if pickled else None), allow_pickle=pickled)
    assert read_names(path).tolist() == [list(pair) for pair in pairs]


def test_pickled_rows_of_lists_and_numpy_words_come_back(tmp_path):
    rows = np.empty(3, object)
    rows[:] = [["1", 5], ("2", np.str_("x")), np.array(["3", "yz"])]
    assert read_names(saved(tmp_path, rows)).tolist() == [["1", "5"], ["2", "x"], ["3", "yz"]]
    words = np.array([np.str_("sofa"), "lamp", b"bed"], object)
    assert read_names(saved(tmp_path, words)).tolist() == ["sofa", "lamp", "bed"]


def test_what_python_2_wrote_comes_back(tmp_path):
    """Protocol 0 to 2 of that time: NumPy's old module names, and bytes for text."""
    body = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I2\ntcnumpy\ndtype\n(S'O8'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI63\ntbI00\n(lS'BOS'\naS'sofa'\natb."
    )
    header = np.lib.format.magic(1, 0)
    text = b"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"
    text += b" " * (63 - (len(header) + 2 + len(text)) % 64) + b"\n"
    path = tmp_path / "names.npy"
    path.write_bytes(header + len(text).to_bytes(2, "little") + text + body)
    assert read_names(path).tolist() == ["BOS", "sofa"]


class Boom:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    evil = np.empty(1, object)
    evil[0] = Boom()
    with pytest.raises(DataError, match="exec"):
        read_names(saved(tmp_path, evil))


@pytest.mark.parametrize("content", [{"a": 1}, [3.5, 2.0], [None, "a"]])
def test_what_is_not_text_is_refused(tmp_path, content):
    array = np.empty(1, object)
    array[:] = [content]
    with pytest.raises(DataError):
        read_names(saved(tmp_path, array))


def test_numbers_with_a_point_are_refused(tmp_path):
    with pytest.raises(DataError, match="must hold text"):
        read_names(saved(tmp_path, np.array([1.5])))


def test_damaged_and_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no file .*none\.npy"):
        read_names(tmp_path / "none.npy")
    path = saved(tmp_path, np.array(["a", "b"], object))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        read_names(path)
    path.write_bytes(pickle.dumps(["a"]))
    with pytest.raises(DataError, match="cannot be read"):
        read_names(path)
