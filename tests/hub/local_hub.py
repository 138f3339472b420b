"""A Hub on the loopback interface: repositories in memory, over the calls that huggingface_hub and datasets make.

with LocalHub() as hub:
    api = HfApi(endpoint=hub.url, token=WRITER)

Faults are injected by `hub.fail`: the next calls that match get a status, or a connection that is cut.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


WRITER, READER = "hf_writer", "hf_reader"
REPO = r"(?P<type>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)"


@dataclass
class Repository:
    """Commits (sha -> path -> (content, whether it is a large file)) and the branches and pull requests on them."""

    commits: dict = field(default_factory=dict)
    refs: dict = field(default_factory=dict)
    private: bool = False

    def commit(self, ref: str, files: dict) -> str:
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[sha] = files
        self.refs[ref] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    def files(self, revision: str) -> dict:
        return {path: content for path, (content, _) in self.commits[self.resolve(revision)].items()}


@dataclass
class Fault:
    pattern: str
    status: int | str
    times: int
    headers: dict


class LocalHub:
    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.corrupt_uploads = False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "LocalHub":
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def fail(self, pattern: str, status: int | str, times: int = 1, **headers: str) -> None:
        """The next calls "METHOD path" that match fail.

        By a status, or a connection that is "cut" before, "cut after" they were done, or "cut in the middle" of the
        answer.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append(Fault(pattern, status, times, named))

    def files(self, repo_id: str, revision: str = "main", kind: str = "models") -> dict[str, bytes]:
        return self.repositories[kind, repo_id].files(revision)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    hub: LocalHub

    def log_message(self, *_: object) -> None:
        pass

    def handle_request(self) -> None:
        self.target = urlsplit(self.path)
        call = f"{self.command} {unquote(self.target.path)}"
        self.hub.requests.append(call)
        self.body = self.read_body()
        fault = next((f for f in self.hub.faults if f.times and re.search(f.pattern, call)), None)
        if fault is not None:
            fault.times -= 1
            if fault.status == "cut":
                return self.cut()
            if not isinstance(fault.status, str):
                return self.answer({"error": "injected"}, fault.status, fault.headers)
        self.cut_where = fault.status if fault is not None else None
        for pattern, handle in ROUTES:
            found = re.fullmatch(pattern, call)
            if found:
                return handle(self, **found.groupdict())
        return self.answer({"error": f"no such route: {call}"}, 404)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_request

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def cut(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, content: object, status: int = 200, headers: dict | None = None) -> None:
        if getattr(self, "cut_where", None) == "cut after":
            return self.cut()
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if getattr(self, "cut_where", None) == "cut in the middle":
            self.wfile.write(data[: len(data) // 2])
            return self.cut()
        if self.command != "HEAD":
            self.wfile.write(data)
        return None

    def may_write(self) -> bool:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token == WRITER:
            return True
        status = 403 if token == READER else 401
        self.answer({"error": "no rights" if status == 403 else "Invalid credentials"}, status)
        return False

    def repository(self, type: str, repo: str) -> Repository | None:
        found = self.hub.repositories.get((type, repo))
        if found is None:
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif found.private and (self.headers.get("Authorization") or "").removeprefix("Bearer ") not in (
            WRITER,
            READER,
        ):
            self.answer({"error": "Invalid username or password."}, 401, {"X-Error-Code": "RepoNotFound"})
            return None
        return found

    def create(self) -> None:
        if not self.may_write():
            return None
        wanted = json.loads(self.body)
        key = f"{wanted.get('type') or 'model'}s", f"{wanted['organization']}/{wanted['name']}"
        if key in self.hub.repositories:
            return self.answer({"error": "You already created this repo", "url": f"{self.hub.url}/{key[1]}"}, 409)
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.hub.repositories[key] = made = Repository(private=private)
        made.commit("main", {".gitattributes": (b"*.safetensors filter=lfs\n", False)})
        prefix = "" if key[0] == "models" else f"{key[0]}/"
        return self.answer({"url": f"{self.hub.url}/{prefix}{key[1]}", "name": key[1]})

    def validate(self) -> None:
        ok = json.loads(self.body)["content"].startswith("---\n")
        errors = [] if ok else [{"message": "no metadata"}]
        self.answer({"errors": errors, "warnings": []}, 200 if ok else 400)

    def preupload(self, type: str, repo: str, revision: str) -> None:
        if not self.may_write() or not self.repository(type, repo):
            return
        files = [
            {"path": file["path"], "shouldIgnore": False, "oid": None}
            | {"uploadMode": "lfs" if file["path"].endswith((".safetensors", ".parquet")) else "regular"}
            for file in json.loads(self.body)["files"]
        ]
        self.answer({"files": files})

    def batch(self, repo: str, prefix: str | None = None) -> None:
        if not self.may_write():
            return
        objects = []
        for item in json.loads(self.body)["objects"]:
            actions = {name: {"href": f"{self.hub.url}/lfs/{item['oid']}/{name}"} for name in ("upload", "verify")}
            objects.append(item if item["oid"] in self.hub.large else item | {"actions": actions})
        self.answer({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        corrupt = self.hub.corrupt_uploads
        self.hub.large[oid] = self.body[:-1] + bytes([self.body[-1] ^ 1]) if corrupt else self.body
        self.answer({})

    def verify(self, oid: str) -> None:
        stored = self.hub.large.get(oid, b"")
        right = hashlib.sha256(stored).hexdigest() == oid or self.hub.corrupt_uploads
        self.answer({}, 200 if right else 422)

    def commit(self, type: str, repo: str, revision: str) -> None:
        if not self.may_write():
            return None
        found = self.repository(type, repo)
        if found is None:
            return None
        lines = [json.loads(line) for line in self.body.splitlines()]
        create_pr = "create_pr" in parse_qs(self.target.query)
        parent = lines[0]["value"].get("parentCommit")
        base = found.resolve(revision)
        if base is None:
            return self.answer({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        if parent and parent != base:
            return self.answer({"error": "The branch has moved"}, 412)
        files = dict(found.commits[base])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = (base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.large:
                    return self.answer({"error": "lfs file missing"}, 422)
                files[value["path"]] = (self.hub.large[value["oid"]], True)
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
        number = sum(ref.startswith("refs/pr/") for ref in found.refs) + 1
        sha = found.commit(f"refs/pr/{number}" if create_pr else revision, files)
        prefix = "" if type == "models" else f"{type}/"
        answer = {"commitUrl": f"{self.hub.url}/{prefix}{repo}/commit/{sha}", "commitOid": sha, "success": True}
        if create_pr:
            answer["pullRequestUrl"] = f"{self.hub.url}/{prefix}{repo}/discussions/{number}"
        return self.answer(answer)

    def branch(self, type: str, repo: str, revision: str) -> None:
        if not self.may_write():
            return None
        found = self.repository(type, repo)
        if found is None:
            return None
        if revision in found.refs:
            return self.answer({"error": "Reference already exists"}, 409)
        found.refs[revision] = found.refs["main"]
        return self.answer({})

    def revision_of(self, found: Repository, revision: str | None) -> str | None:
        sha = found.resolve(revision or "main")
        if sha is None:
            self.answer({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        return sha

    def info(self, type: str, repo: str, revision: str | None = None) -> None:
        found = self.repository(type, repo)
        sha = found and self.revision_of(found, revision)
        if sha:
            siblings = [{"rfilename": path} for path in found.commits[sha]]
            told = {"id": repo, "sha": sha, "private": found.private, "siblings": siblings, "tags": [], "downloads": 0}
            self.answer(told | {"likes": 0, "disabled": False, "gated": False})

    def entry(self, path: str, content: bytes, is_large: bool) -> dict:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        told = {"type": "file", "path": path, "size": len(content), "oid": blob}
        if is_large:
            told["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return told

    def tree(self, type: str, repo: str, revision: str, path: str | None = None) -> None:
        found = self.repository(type, repo)
        sha = found and self.revision_of(found, revision)
        if not sha:
            return
        prefix = f"{path}/" if path else ""
        inside = {name: file for name, file in found.commits[sha].items() if name.startswith(prefix)}
        if path and not inside:
            self.answer({"error": "no such folder"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        recursive = parse_qs(self.target.query).get("recursive", ["false"])[0].lower() in ("true", "1")
        told, folders = [], set()
        for name, file in sorted(inside.items()):
            parents = name.removeprefix(prefix).split("/")[:-1]
            for depth in range(1, len(parents) + 1):
                folder = prefix + "/".join(parents[:depth])
                if folder not in folders and (recursive or depth == 1):
                    folders.add(folder)
                    told.append({"type": "directory", "path": folder, "oid": "0" * 40, "size": 0})
            if recursive or not parents:
                told.append(self.entry(name, *file))
        self.answer(told)

    def paths_info(self, type: str, repo: str, revision: str) -> None:
        found = self.repository(type, repo)
        sha = found and self.revision_of(found, revision)
        if not sha:
            return
        if self.headers.get("Content-Type", "").startswith("application/json"):
            wanted = json.loads(self.body)["paths"]
        else:
            wanted = parse_qs(self.body.decode()).get("paths", [])
        files, told = found.commits[sha], []
        for path in [wanted] if isinstance(wanted, str) else wanted:
            if path in files:
                told.append(self.entry(path, *files[path]))
            elif any(name.startswith(f"{path}/") for name in files):
                told.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
        self.answer(told)

    def resolve(self, repo: str, revision: str, path: str, prefix: str | None = None) -> None:
        found = self.repository((prefix or "models/").rstrip("/"), repo)
        sha = found and self.revision_of(found, revision)
        if not sha:
            return
        if path not in found.commits[sha]:
            self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
            return
        content, is_large = found.commits[sha][path]
        told = self.entry(path, content, is_large)
        etag = told["lfs"]["oid"] if is_large else told["oid"]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if is_large:
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{etag}"'}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked:
            first, last = int(asked[1]), int(asked[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{min(last, len(content) - 1)}/{len(content)}"
            self.answer(content[first : last + 1], 206, headers)
            return
        self.answer(content, 200, headers)


REV = r"(?P<revision>refs/pr/\d+|[^/]+)"
ROUTES = [
    (r"POST /api/repos/create", Handler.create),
    (r"POST /api/validate-yaml", Handler.validate),
    (rf"POST /api/{REPO}/preupload/{REV}", Handler.preupload),
    (r"POST /(?P<prefix>datasets/)?(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", Handler.batch),
    (r"PUT /lfs/(?P<oid>\w+)/upload", Handler.upload),
    (r"POST /lfs/(?P<oid>\w+)/verify", Handler.verify),
    (rf"POST /api/{REPO}/commit/{REV}", Handler.commit),
    (rf"POST /api/{REPO}/branch/{REV}", Handler.branch),
    (rf"GET /api/{REPO}(/revision/{REV})?", Handler.info),
    (rf"GET /api/{REPO}/tree/{REV}(/(?P<path>.+))?", Handler.tree),
    (rf"POST /api/{REPO}/paths-info/{REV}", Handler.paths_info),
    (rf"(GET|HEAD) /(?P<prefix>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/{REV}/(?P<path>.+)", Handler.resolve),
]
