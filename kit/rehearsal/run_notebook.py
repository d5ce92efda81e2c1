"""Run a notebook as Kaggle does, with nbclient and ipykernel, and print its outputs as they come.

A rehearsal copies this file into its stage and starts it there: `python run_notebook.py NOTEBOOK`.
Kaggle uses papermill, whose rules are kept: the first cell that fails is the last one that runs,
and an error anywhere fails the notebook, even in a cell with the tag raises-exception;
`sys.exit(0)` only ends it. Like `guard`, this file may import nothing of the kit: a rehearsal
refuses that.
"""

import re
import sys
import warnings

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

START_SECONDS = 600  # until the kernel answers; nbclient's minute is too short on a busy machine
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class PrintingClient(NotebookClient):
    """Prints each output when it comes; nbclient would only write it into the notebook."""

    def process_message(self, msg, cell, cell_index):
        kind, content = msg["msg_type"], msg["content"]
        if kind == "stream":
            (sys.stderr if content["name"] == "stderr" else sys.stdout).write(content["text"])
        elif kind in ("display_data", "execute_result"):
            print(content["data"].get("text/plain", ""))
        elif kind == "error":
            print(ANSI.sub("", "\n".join(content["traceback"])))
        sys.stdout.flush()
        return super().process_message(msg, cell, cell_index)


def main(path: str) -> int:
    """Exit code 0 where Kaggle would call the notebook complete."""
    warnings.filterwarnings("ignore", module="nbformat")  # about ids that older notebooks lack
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        cell.outputs = []  # Kaggle's client pushes none; an old error among them is not of this run
    client = PrintingClient(notebook, timeout=None, startup_timeout=START_SECONDS,
                            kernel_name="python3")
    name = value = ""
    try:
        client.execute()
    except CellExecutionError as error:
        name, value = error.ename, error.evalue
    except DeadKernelError:
        print("DeadKernelError: the process that runs the cells has died: killed, out of memory, "
              "or ended by a cell")
        return 1
    errors = [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    failures = [error for error in errors
                if error.ename != "SystemExit" or error.evalue not in ("", "0")]
    if failures:
        name, value = failures[0].ename, failures[0].evalue
    elif errors or not name:
        return 0
    print(f"{name}: {value}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
