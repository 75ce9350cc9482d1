# SPDX-License-Identifier: GPL-2.0-or-later
"""edits.py, done to Bochs' sources."""

import pathlib
import shutil

from .. import store
from . import edits

HERE = pathlib.Path(__file__).parent
# Our own sources that the edits include.
FILES = {HERE / "door.h": "iodev/door.h"}


def apply(folder, leave_out=()):
    """In `folder`; edits named in `leave_out` are left out."""
    texts = {}
    unknown = set(leave_out) - {edit.name for edit in edits.EDITS}
    if unknown:
        raise store.Failure(f"no edit is called {', '.join(sorted(unknown))}", store.USAGE)
    for edit in edits.EDITS:
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
    for file, place in FILES.items():
        shutil.copy(file, folder / place)
    for path, text in texts.items():
        if path.read_text(encoding="latin-1") != text:  # keep the time of what is as it was: make looks at it
            path.write_text(text, encoding="latin-1")
