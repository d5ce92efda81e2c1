"""Restrict what Python may import and connect to in a rehearsal.

This file is copied into the sandbox as `sitecustomize.py`, so that every Python there runs it
first. The JSON file that `KIT_REHEARSAL` names holds the packages of Kaggle's image, the kernel's
own folders, and the path of a log. Importing anything else that is installed here is refused and
logged (the kit included: the packed copy must be what runs), and so is each connection that would
leave this machine. This file itself can import nothing of the kit.
"""

import errno
import json
import os
import socket
import sys
from pathlib import Path


class ImportGuard:
    """An import finder, put first: refuses what is installed here and would not be on Kaggle."""

    def __init__(self, rules: dict) -> None:
        self.allowed = {*rules["packages"], *sys.stdlib_module_names, "__main__", "sitecustomize"}
        self.own, self.stdlib = tuple(rules["own_folders"]), rules["stdlib"]
        self.log = rules["log"]

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if path is not None or name in self.allowed:
            return
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            if spec := finder.find_spec(name, None):
                places = [spec.origin or "", *(spec.submodule_search_locations or ())]
                if not any(self.may_load(os.path.realpath(place)) for place in places if place):
                    _log(self.log, "import", name)
                    raise ModuleNotFoundError(f"No module named {name!r} (in Kaggle's image)",
                                              name=name)
                return

    def may_load(self, place: str) -> bool:
        installed = "site-packages" in place or "dist-packages" in place
        return place.startswith(self.own) or (place.startswith(self.stdlib) and not installed)


def _is_local(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode("utf-8", "replace")
    return (not isinstance(host, str)  # None, or the numbers of a netlink socket
            or host in ("", "localhost", "::", "::1", socket.gethostname())
            or host == "0.0.0.0"  # noqa: S104 # nosec B104
            or host.startswith(("127.", "::ffff:127.")))


def _network_hook(log: str):
    def hook(event: str, arguments: tuple) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            address = arguments[1]
            if isinstance(address, tuple) and address and not _is_local(address[0]):
                _log(log, "network", f"{address[0]}:{address[1]}")
                raise OSError(errno.ENETUNREACH, "Network is unreachable (as on Kaggle)")
        elif event in ("socket.getaddrinfo", "socket.gethostbyname") \
                and not _is_local(arguments[0]):
            _log(log, "network", str(arguments[0]))
            raise socket.gaierror(socket.EAI_AGAIN,
                                  "Temporary failure in name resolution (as on Kaggle)")

    return hook


def _log(log: str, kind: str, what: str) -> None:
    # An append of one short line is atomic
    with open(log, "a", encoding="utf-8") as file:  # noqa: PTH123
        file.write(json.dumps([kind, what]) + "\n")


def install(rules: dict) -> None:
    sys.meta_path.insert(0, ImportGuard(rules))
    sys.addaudithook(_network_hook(rules["log"]))


if __name__ == "sitecustomize" and "KIT_REHEARSAL" in os.environ:
    install(json.loads(Path(os.environ["KIT_REHEARSAL"]).read_text("utf-8")))
