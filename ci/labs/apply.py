# SPDX-License-Identifier: GPL-2.0-or-later
"""Edits to another project's sources, done before they are built: what an edit is, and how it is applied.

An edit names a file and an anchor in it. The anchor must be there exactly as often as the edit says (once, if it
says nothing), so that another version is refused and not half changed."""

import dataclasses
import shutil

from . import store

LAB = "LAB"  # for Edit.check, where no instruction tells: the machine would not be built or would not run


@dataclasses.dataclass(frozen=True)
class Change:
    """`old` becomes `new`. With `until`, all from `old` up to the next `until` (which stays) becomes `new`."""
    file: str
    old: str
    new: str
    times: int = 1
    until: str = ""


@dataclasses.dataclass(frozen=True)
class Edit:
    """`check` names what of the lab's self-test fails without it."""
    name: str
    why: str
    check: str
    changes: tuple


def after(file, anchor, text, times=1):
    return Change(file, anchor, anchor + text, times)


def before(file, anchor, text, times=1):
    return Change(file, anchor, text + anchor, times)


def swap(file, old, new, times=1):
    return Change(file, old, new, times)


def cut(file, old, until, new):
    return Change(file, old, new, 1, until)


def apply(folder, edits, leave_out=(), files=()):
    """In `folder`; edits named in `leave_out` are left out. `files` are pairs of a source of ours and its place."""
    texts = {}
    unknown = set(leave_out) - {edit.name for edit in edits}
    if unknown:
        raise store.Failure(f"no edit is called {', '.join(sorted(unknown))}", store.USAGE)
    for edit in edits:
        if edit.name in leave_out:
            continue
        for change in edit.changes:
            path = folder / change.file
            text = texts.setdefault(path, path.read_text(encoding="latin-1"))
            found = text.count(change.old)
            if found != change.times:
                raise store.Failure(f"edit {edit.name}: {change.file} has the anchor {found} times and not "
                                    f"{change.times}; this is not the version it is for:\n{change.old}")
            if change.until:
                start = text.index(change.old)
                end = text.find(change.until, start)
                if end < 0:
                    raise store.Failure(f"edit {edit.name}: {change.file} lacks the end of what is replaced:\n"
                                        f"{change.until}")
                text = text[:start] + change.new + text[end:]
            else:
                text = text.replace(change.old, change.new)
            texts[path] = text
    for file, place in files:
        shutil.copy(file, folder / place)
    for path, text in texts.items():
        if path.read_text(encoding="latin-1") != text:  # keep the time of what is as it was: make looks at it
            path.write_text(text, encoding="latin-1")
