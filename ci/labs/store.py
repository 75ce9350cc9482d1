# SPDX-License-Identifier: GPL-2.0-or-later
"""What labs keep: one folder, in which a thing is made again only when its inputs have changed."""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

# As fpswap's.
OK, FAILED, USAGE, UNAVAILABLE = range(4)


class Failure(Exception):
    """A sentence that the user can act on, and the exit code that goes with it."""

    def __init__(self, sentence, code=FAILED):
        super().__init__(sentence)
        self.code = code


def say(sentence):
    print(f"ci/lab: {sentence}", file=sys.stderr, flush=True)


def cache(environment=os.environ):
    """$FPSWAP_CACHE, or ~/.cache/fpswap."""
    base = environment.get("FPSWAP_CACHE") or os.path.join(
        environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "fpswap")
    return pathlib.Path(base).absolute()


def lab_folder(name, environment=os.environ):
    return cache(environment) / "labs" / name


def need(purpose, packages):
    """Installs what is missing of Debian packages, as ci/test does; where it may not, the failure names them."""
    if shutil.which("dpkg-query") is None:
        say(f"this is not a Debian machine: {purpose} needs the equivalents of {', '.join(packages)}")
        return
    with lock(cache() / "packages"):
        _install(purpose, packages)


def _install(purpose, packages):
    asked = subprocess.run(["dpkg-query", "-W", "-f=${Package} ${Status}\\n", *packages], check=False, capture_output=True,
                           text=True)
    there = {line.split()[0] for line in asked.stdout.splitlines() if line.endswith("ok installed")}
    missing = sorted(set(packages) - there)
    if not missing:
        return
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    may = shutil.which("apt-get") and (not root or shutil.which("sudo") and subprocess.run(
        [*root, "true"], check=False, capture_output=True).returncode == 0)
    if not may:
        raise Failure(f"{purpose} needs packages, and installing them needs root: sudo apt-get install {' '.join(missing)}",
                      UNAVAILABLE)
    say(f"{purpose} needs packages; installing {' '.join(missing)}")
    for words in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        done = subprocess.run([*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", *words], check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise Failure(f"apt-get {words[0]} failed (exit code {done.returncode}): {done.stdout.strip()[-500:]}",
                          UNAVAILABLE)


def digest(*inputs):
    """The SHA-256 of the inputs: of a Path its contents, of all else its text. Their order and number count."""
    whole = hashlib.sha256()
    for item in inputs:
        data = item.read_bytes() if isinstance(item, pathlib.Path) else repr(item).encode()
        whole.update(hashlib.sha256(data).digest())
    return whole.hexdigest()


def identity(path):
    """Of a file too large to be read each time: what changes when it is written anew."""
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def lock(path):
    """Only one process at a time is inside; the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.lock", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made(output, inputs, make, what):
    """`output`, made by make(temporary path) unless it is there and was made from the same inputs.

    `what` is said before it is made. The digest of the inputs stands beside the output, in OUTPUT.key; it is written
    after the output, so what was interrupted is made again."""
    key = output.with_name(output.name + ".key")
    wanted = digest(*inputs)

    def is_there():
        return output.exists() and key.exists() and key.read_text(encoding="utf-8") == wanted

    if is_there():
        return output
    with lock(output):
        if is_there():  # by whom we waited for
            return output
        say(what)
        key.unlink(missing_ok=True)
        temporary = output.with_name(f"{output.name}.part")
        remove(temporary)
        make(temporary)
        remove(output)
        os.replace(temporary, output)
        key.write_text(wanted, encoding="utf-8")
    return output


def remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def last_used(key):
    """When what the file NAME.key is of was used last; 0 if another process has just removed it."""
    try:
        return key.with_suffix("").stat().st_mtime
    except FileNotFoundError:
        return 0


def keep_newest(pattern, count):
    """Of the things that made() has made, with `pattern` (a Path) of their names, all but the `count` used last go."""
    keys = sorted(pattern.parent.glob(f"{pattern.name}.key"), key=last_used)
    for old in keys[:-count]:
        for file in old.parent.glob(f"{old.stem}*"):
            remove(file)


def ccache_settings(root, **compilers):
    """For a build in a folder of its own under `root`: the same objects but for what has changed. `compilers` are the
    variables that name them (CC="gcc")."""
    ccache = "ccache " if shutil.which("ccache") else ""
    return {**os.environ, **{name: ccache + program for name, program in compilers.items()},
            "CCACHE_BASEDIR": str(root), "CCACHE_NOHASHDIR": "1"}


def build_steps(what, steps, log, nice, **options):
    """Runs the commands one after the other at a lower priority, with all that they say in `log`."""
    with open(log, "wb") as out:
        for step in steps:
            done = subprocess.run(["nice", *nice, *step], stdout=out, stderr=out, check=False, stdin=subprocess.DEVNULL,
                                  **options)
            if done.returncode != 0:
                raise Failure(f"building {what}: {step[0]} failed; its output is {log}")


def logged(what, words, out, log):
    """Runs a command with all that it says in the open file `out` of the name `log`; a failure tells its last words."""
    if subprocess.run(words, stdout=out, stderr=out, check=False).returncode != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
        raise Failure(f"{what} failed; {log} ends with:\n{tail}")


def debian(verb, *words):
    """The lines that `ci/debian` answers with."""
    done = subprocess.run([REPOSITORY / "ci" / "debian", "--cache", cache() / "debian", verb, *words],
                          stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"ci/debian {verb} {' '.join(words)} failed; what it said stands above", UNAVAILABLE)
    return done.stdout.split()


def unpacked(package):
    """The folder of a Debian package, of its newest version or of NAME=VERSION-PREFIX's."""
    return pathlib.Path(debian("unpack", package)[0])


def extract(archive, folder):
    """All of an open tarfile, and nothing outside of `folder` where this Python can see to that (3.11.4 and later)."""
    archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
