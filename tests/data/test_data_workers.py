"""Work in several processes: in order, from any script, ended with the iterator."""

import operator
import os
import subprocess
import sys
from functools import partial

import pytest

from lstm_jax.data.workers import CHUNK, in_processes


@pytest.mark.parametrize("number", [0, 1, CHUNK, 3 * CHUNK + 5])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_results_come_in_order(number, processes):
    found = list(in_processes(partial(operator.mul, 3), number, processes))
    assert found == [3 * k for k in range(number)]


def _process(_):
    return os.getpid()


def test_few_results_start_no_process():
    assert set(in_processes(_process, 10)) == {os.getpid()}


def test_a_failure_is_told(capfd):
    with pytest.raises(RuntimeError, match="ended with 1"):
        list(in_processes(partial(operator.truediv, 1), 2 * CHUNK, 2))
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_script_is_not_run_again(tmp_path):
    """One without `if __name__ == "__main__"`, as notebooks' users write them."""
    script = tmp_path / "script.py"
    script.write_text(
        "import operator\n"
        "from functools import partial\n"
        "from lstm_jax.data.workers import in_processes\n"
        "print('once')\n"
        "print(sum(in_processes(partial(operator.add, 1), 100, 2)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.stdout.split() == ["once", "5050"], done.stderr


def test_processes_end_with_the_iterator():
    results = in_processes(partial(operator.add, 1), 10**6, 2)
    assert next(results) == 1
    results.close()  # waits for them: would hang, were they alive
