"""A Kaggle on this machine, as far as the official client (2.2) needs one; faults on demand.

The client's real requests are brought here by KAGGLE_API_ENVIRONMENT=LOCALHOST and HTTP_PROXY, and answered in the
shapes that the client's own source reads (`kagglesdk`). What Kaggle itself does, as far as it is known: a session
of a version is asked for with `versionLabel` "v3", and a bare "3" is a 404 (kaggle-cli issue 1200); without it the
newest session answers, which for a while is the one of the version before; errors of a push come with status 200.

As a script: `python -m tests.kaggle.stand_in --data FOLDER` serves the files of FOLDER as the
competition's and prints the environment that brings a client here.
"""

import argparse
import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.data.zips import make_zip

USER, TOKEN, KEY = "ada", "KGAT_5ecretsecret0123456789abcdef5ecret", "0123456789abcdef0123456789abcdef"
SIGNATURE = "X-Goog-Signature=5igned0123456789"
Answer = tuple[int, dict[str, Any]]


@dataclass
class Fault:
    """Answer the next `times` requests of a method like this instead; `after`: carry the request out first."""

    status: int = 500
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    message: str = ""
    cut: int | None = None  # bytes of the body, after which the connection dies
    announce: int | None = None  # the Content-Length that is announced
    hang_up: bool = False  # no answer at all
    after: bool = False


@dataclass
class Version:
    """One pushed version of a kernel, the statuses that it goes through, and what it leaves."""

    text: str
    statuses: list[str]
    outputs: dict[str, bytes]
    log: str
    failure: str = ""
    body: dict[str, Any] = field(default_factory=dict)

    def step(self) -> str:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


class KaggleStandIn:
    """The server; its fields are Kaggle's state, `requests` is what came in: (method, body)."""

    def __init__(self, files: dict[str, bytes] | None = None, slug: str = "kannada-mnist", port: int = 0) -> None:
        self.slug, self.archive = slug, make_zip(files or {})
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.ranges: list[str] = []
        self.seen_authorization: list[str] = []
        self.faults: dict[str, list[Fault]] = {}
        self.accepts_ranges, self.etag = True, '"v1"'
        self.kernels: dict[str, list[Version]] = {}
        self.next_statuses = ["QUEUED", "RUNNING", "COMPLETE"]
        self.next_outputs = {"submission.csv": b"id,label\n0,3\n", "report.json": b"{}"}
        self.next_log = json.dumps([{"stream_name": "stdout", "time": 1.5, "data": "fold 0 done\n"}])
        self.next_failure = ""
        self.push_answer: dict[str, Any] = {}
        self.stale_polls = 2  # unlabelled questions that still get the version before
        self.submissions: list[dict[str, Any]] = []
        self.scores: list[dict[str, Any]] = [{}, {"status": "COMPLETE", "publicScore": "0.98840",
                                                  "privateScore": "0.98760"}]
        self.hide_new = False  # lists show neither new versions nor new submissions
        self.limits: dict[str, Any] | None = {"numToday": 1, "numTotal": 9, "numAllowedNow": 4}
        self.quota: dict[str, Any] | None = None
        self.streams: list[list[str]] = []  # of a log, one for each connection: what comes before it is lost
        self.stream_paths: list[str] = []
        self.datasets: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.lock = threading.RLock()
        self.http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that die are part of the play
        self.port = self.http.server_address[1]

    def start(self) -> "KaggleStandIn":
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def fault(self, method: str, **facts: Any) -> None:
        self.faults.setdefault(method, []).append(Fault(**facts))

    def take_fault(self, method: str) -> Fault | None:
        waiting = self.faults.get(method, [])
        if not waiting:
            return None
        waiting[0].times -= 1
        return waiting[0] if waiting[0].times > 0 else waiting.pop(0)

    def count(self, method: str) -> int:
        return sum(name == method for name, _ in self.requests)

    def environment(self) -> dict[str, str]:
        proxy = f"http://127.0.0.1:{self.port}"
        return {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "HTTP_PROXY": proxy, "http_proxy": proxy, "NO_PROXY": "",
                "no_proxy": ""}

    def authorized(self, header: str) -> bool:
        basic = "Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        return header in (f"Bearer {TOKEN}", basic)

    # -- what the services answer ------------------------------------------------------------------------------------

    def answer(self, method: str, body: dict[str, Any]) -> Answer:
        with self.lock:
            known: Callable[[dict[str, Any]], Answer] | None = getattr(self, f"do_{method}", None)
            return known(body) if known else (404, {"code": 404, "message": f"no method {method}"})

    def do_IntrospectToken(self, body: dict[str, Any]) -> Answer:
        return 200, {"active": True, "username": USER} if body.get("token") == TOKEN else {"active": False}

    def do_GenerateAccessToken(self, body: dict[str, Any]) -> Answer:
        good = body.get("refreshToken") == "refresh-" + TOKEN
        return (200, {"token": TOKEN, "expiresIn": 43200}) if good else (401, {"code": 401, "message": "Unauthorized"})

    def do_SaveKernel(self, body: dict[str, Any]) -> Answer:
        if self.push_answer:
            return 200, self.push_answer
        owner, slug = body["slug"].split("/")
        slug = body.get("newTitle", slug).lower().replace(" ", "-")  # it is the title that decides
        versions = self.kernels.setdefault(f"{owner}/{slug}", [])
        versions.append(Version(body.get("text", ""), list(self.next_statuses), dict(self.next_outputs), self.next_log,
                                self.next_failure, body))
        self.stale_left = self.stale_polls
        return 200, {"ref": f"/code/{owner}/{slug}", "url": f"https://www.kaggle.com/code/{owner}/{slug}",
                     "versionNumber": len(versions), "error": "", "kernelId": 7}

    def _version(self, body: dict[str, Any]) -> tuple[int, Version | None]:
        versions = self.kernels.get(f"{body.get('userName')}/{body.get('kernelSlug')}", [])
        label, number = body.get("versionLabel"), len(versions)
        if label:
            number = int(label[1:]) if label[:1] == "v" and label[1:].isdigit() else 0
        return number, versions[number - 1] if 0 < number <= len(versions) else None

    def do_GetKernel(self, body: dict[str, Any]) -> Answer:
        number, version = self._version(body)
        if version is None or self.hide_new:
            return 404, {"code": 404, "message": "Not found"}
        return 200, {"metadata": {"currentVersionNumber": number, "slug": body["kernelSlug"]},
                     "blob": {"source": version.text}}

    def do_GetKernelSessionStatus(self, body: dict[str, Any]) -> Answer:
        number, version = self._version(body)
        if version is None:
            return 404, {"code": 404, "message": "Not found"}
        if not body.get("versionLabel") and number > 1 and self.stale_left > 0:
            self.stale_left -= 1
            return 200, {"status": "COMPLETE"}
        status = version.step()
        return 200, {"status": status, **({"failureMessage": version.failure} if status == "ERROR" else {})}

    def do_ListKernelSessionOutput(self, body: dict[str, Any]) -> Answer:
        number, version = self._version(body)
        if version is None:
            return 404, {"code": 404, "message": "Not found"}
        address = f"http://localhost/storage/{body['userName']}/{body['kernelSlug']}/{number}"
        done = version.statuses[0] in ("COMPLETE", "ERROR") and len(version.statuses) == 1
        files = [{"fileName": name, "url": f"{address}/{name}?{SIGNATURE}"} for name in version.outputs] if done else []
        page = int(body.get("pageToken") or 0)
        return 200, {"files": files[page:page + 1], "log": version.log,
                     "nextPageToken": str(page + 1) if page + 1 < len(files) else ""}

    def do_CreateCodeSubmission(self, body: dict[str, Any]) -> Answer:
        return self._submit(body["competitionName"], body.get("submissionDescription", ""), body.get("fileName", ""),
                            f"{body['kernelOwner']}/{body['kernelSlug']}/{body.get('kernelVersion')}")

    def do_StartSubmissionUpload(self, body: dict[str, Any]) -> Answer:
        return self.do_StartBlobUpload({"name": body["fileName"]})

    def do_CreateSubmission(self, body: dict[str, Any]) -> Answer:
        return self._submit(body["competitionName"], body.get("submissionDescription", ""), "submission.csv",
                            body["blobFileTokens"])

    def _submit(self, slug: str, description: str, name: str, what: str) -> Answer:
        if slug.lower() != self.slug:
            return 404, {"code": 404, "message": "Competition not found"}
        ref = 41000000 + len(self.submissions)
        self.submissions.append({"ref": ref, "description": description, "fileName": name, "what": what,
                                 "date": "2026-01-02T03:04:05.678Z", "looks": list(self.scores)})
        return 200, {"message": "Successfully submitted to Kannada MNIST", "ref": ref}

    def do_ListSubmissions(self, body: dict[str, Any]) -> Answer:
        newest_first, page = [] if self.hide_new else self.submissions[::-1], int(body.get("pageToken") or 0)
        shown = []
        for entry in newest_first[page:page + 2]:
            looks = entry["looks"]
            facts = {"status": "PENDING", **(looks.pop(0) if len(looks) > 1 else looks[0])}
            shown.append({key: value for key, value in entry.items() if key not in ("looks", "what")} | facts)
        return 200, {"submissions": shown, "nextPageToken": str(page + 2) if page + 2 < len(newest_first) else ""}

    def do_GetSubmissionLimits(self, body: dict[str, Any]) -> Answer:
        return (404, {"code": 404, "message": "Not found"}) if self.limits is None else (200, self.limits)

    def do_GetAcceleratorQuotaStatistics(self, body: dict[str, Any]) -> Answer:
        return (404, {"code": 404, "message": "Not found"}) if self.quota is None else (200, self.quota)

    def do_StartBlobUpload(self, body: dict[str, Any]) -> Answer:
        token = f"blob-{len(self.blobs)}-{body['name']}"
        self.blobs[token] = b""
        return 200, {"token": token, "createUrl": f"http://localhost/upload/{token}"}

    def do_GetDatasetStatus(self, body: dict[str, Any]) -> Answer:
        dataset = self.datasets.get(f"{body['ownerSlug']}/{body['datasetSlug']}")
        if dataset is None:
            return 403, {"code": 403, "message": "Permission 'datasets.get' was denied"}  # so Kaggle, not 404
        statuses = dataset["statuses"]
        return 200, {"status": statuses.pop(0) if len(statuses) > 1 else statuses[0]}

    def do_GetDataset(self, body: dict[str, Any]) -> Answer:
        ref = f"{body['ownerSlug']}/{body['datasetSlug']}"
        if ref not in self.datasets:
            return 403, {"code": 403, "message": "Permission 'datasets.get' was denied"}
        return 200, {"ref": ref, "currentVersionNumber": len(self.datasets[ref]["versions"])}

    def do_CreateDataset(self, body: dict[str, Any]) -> Answer:
        return self._store(f"{body['ownerSlug']}/{body['slug']}", body)

    def do_CreateDatasetVersion(self, body: dict[str, Any]) -> Answer:
        return self._store(f"{body['ownerSlug']}/{body['datasetSlug']}", body["body"])

    def _store(self, ref: str, body: dict[str, Any]) -> Answer:
        dataset = self.datasets.setdefault(ref, {"versions": []})
        dataset["statuses"] = ["BLOBS_RECEIVED", "READY"]
        names = {entry["token"].split("-", 2)[2]: self.blobs[entry["token"]] for entry in body.get("files", [])}
        dataset["versions"].append(names)
        return 200, {"ref": ref, "url": f"https://www.kaggle.com/datasets/{ref}", "status": "Ok"}


def point_client(monkeypatch: Any, home: Path, kaggle: KaggleStandIn, credential: str = "token") -> None:
    """Send the client of this process to `kaggle`, with an empty home folder and one credential: token, key or none."""
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME",
                 "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    for name, value in kaggle.environment().items():
        monkeypatch.setenv(name, value)
    if credential == "token":
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    elif credential == "key":
        monkeypatch.setenv("KAGGLE_USERNAME", USER)
        monkeypatch.setenv("KAGGLE_KEY", KEY)


# -- HTTP -------------------------------------------------------------------------------------------------------------


def _handler(kaggle: KaggleStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet: two would wait for each other, 40 ms each time

        def log_message(self, *_: Any) -> None:
            """Silent: what came in is in `requests`."""

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            method = urlsplit(self.path).path.rsplit("/", 1)[-1]
            body = json.loads(raw or b"{}")
            kaggle.requests.append((method, body))
            kaggle.seen_authorization.append(self.headers.get("Authorization", ""))
            fault = kaggle.take_fault(method)
            if fault and fault.after:
                kaggle.answer(method, body)
            if fault and not (fault.status == 200 and method == "DownloadDataFiles"):
                self._fail(fault)
            elif not method.startswith(("IntrospectToken", "GenerateAccessToken")) \
                    and not kaggle.authorized(self.headers.get("Authorization", "")):
                self._json(401, {"code": 401, "message": "Unauthorized"})
            elif method == "DownloadDataFiles":
                self._download(body)
            else:
                self._json(*kaggle.answer(method, body))

        def _download(self, body: dict[str, Any]) -> None:
            if body["competitionName"].lower() != kaggle.slug:
                return self._json(404, {"code": 404, "message": "Competition not found"})
            self._send(302, b"", {"Location": f"http://localhost/storage/archive.zip?{SIGNATURE}"})

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            parts = path.removeprefix("/storage/").split("/")
            if path == "/storage/archive.zip":
                return self._file(kaggle.archive)
            if path.startswith("/storage/") and len(parts) == 4:
                return self._send(200, kaggle.kernels["/".join(parts[:2])][int(parts[2]) - 1].outputs[parts[3]])
            if path.startswith("/api/v1/kernels/logs/stream/") and kaggle.streams:
                kaggle.stream_paths.append(self.path)
                return self._stream(kaggle.streams.pop(0))
            self._json(404, {"code": 404, "message": "Not found"})

        def _stream(self, lines: list[str]) -> None:
            """Server-sent events; without END_OF_LOG as the last line the connection is lost."""
            self.close_connection = True
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in lines:
                data = line if line == "END_OF_LOG" else json.dumps({"stream_name": "stdout", "data": line})
                event = f"data: {data}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            if lines[-1] == "END_OF_LOG":
                self.wfile.write(b"0\r\n\r\n")

        def do_PUT(self) -> None:
            token = urlsplit(self.path).path.removeprefix("/upload/")
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kaggle.requests.append(("PUT", {"token": token}))
            fault = kaggle.take_fault("PUT")
            if fault:
                return self._fail(fault)
            kaggle.blobs[token] = data
            self._send(200, b"{}")

        def _file(self, data: bytes) -> None:
            """The zip, from the byte that is asked for, as long as the faults let it be."""
            kaggle.requests.append(("archive.zip", {}))
            fault = kaggle.take_fault("archive.zip")
            if fault and fault.status >= 400:
                return self._fail(fault)
            wanted, start, status = self.headers.get("Range", ""), 0, 200
            headers = {"ETag": kaggle.etag, "Content-Type": "application/zip"}
            if kaggle.accepts_ranges:
                headers["Accept-Ranges"] = "bytes"
                if wanted:
                    kaggle.ranges.append(wanted)
                    start, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
                    headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            body = data[start:]
            announced = fault.announce - start if fault and fault.announce is not None else len(body)
            cut = fault.cut if fault and fault.cut is not None else len(body)
            self._send(status, body[:cut], headers, announced)
            if cut < len(body) or announced != len(body):
                self.close_connection = True

        def _fail(self, fault: Fault) -> None:
            if fault.hang_up:
                self.close_connection = True
                return
            self._json(fault.status, {"code": fault.status, "message": fault.message or "fault"}, fault.headers)

        def _json(self, status: int, value: dict[str, Any], headers: dict[str, str] | None = None) -> None:
            self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

        def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None,
                  length: int | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) if length is None else length))
            self.end_headers()
            self.wfile.write(data)

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder whose files are the competition's")
    parser.add_argument("--slug", default="kannada-mnist")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--report", type=Path, help="the report.json that every kernel leaves")
    arguments = parser.parse_args()
    files = {path.name: path.read_bytes() for path in sorted(arguments.data.glob("*.csv"))}
    kaggle = KaggleStandIn(files, arguments.slug, arguments.port)
    if arguments.report:
        kaggle.next_outputs["report.json"] = arguments.report.read_bytes()
    for name, value in kaggle.environment().items():
        print(f"export {name}={value}")
    print(f"export KAGGLE_API_TOKEN={TOKEN}    # or KAGGLE_USERNAME={USER} KAGGLE_KEY={KEY}", flush=True)
    kaggle.http.serve_forever()


if __name__ == "__main__":
    main()
