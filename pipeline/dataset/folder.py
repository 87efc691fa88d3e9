"""A data set's folder: which contract is published, which were before, what is being prepared, and which files all of them need.

    contract.json                     the published contract: what readers read
    _contracts/000007.json            a publication; creating this file, which only one process can, is what commits it
    _contracts/draft.json             days that are built and not published yet
    _locks/000012.json                who may write; see pipeline.dataset.lock
    _staging/PROCESS/                 what a build writes before it knows the files' names
    day=2026-01-31/part-00000-CHECKSUM.parquet, vocabularies/item_id-CHECKSUM.parquet ...

A file's name holds the checksum of its content, so no content ever replaces another. Files are removed by the names that an old
contract or draft gives them, when no contract that is kept names them; nothing else in the folder is touched.

All that writes to the folder or removes from it is in this file, longer than others, so that these rules can be checked in one place.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mian.contract import CONTRACT_FILE, Contract, ContractError, Publication
from pipeline.dataset.lock import LOCKS, DatasetLock, DatasetLockedError
from pipeline.io.files import Files

log = logging.getLogger(__name__)

CONTRACTS, DRAFT = "_contracts", "draft.json"
STAGING = "_staging"
#: What a folder may hold before anything was published in it.
_BEGUN = {CONTRACTS, LOCKS, STAGING}
_REVISION = re.compile(r"(\d{6,})\.json")
_PROCESS = re.compile(r".+-\d+-[0-9a-f]{8}")


@dataclass(frozen=True)
class Generation:
    """A generation that is kept: its latest contract, and whether it is the published one."""

    contract: Contract
    current: bool

    @property
    def number(self) -> int:
        """The number of the generation, from 1."""
        return self.contract.publication.generation


class DatasetFolder:
    """Everything below one data set's folder.

    Args:
        files: the file system.
        folder: the data set.
        keep_generations: how many generations stay, the published one included.
    """

    def __init__(self, files: Files, folder: str, keep_generations: int = 2) -> None:
        self._files = files
        self.folder = folder.rstrip("/")
        self._keep = keep_generations

    def contract(self) -> Contract | None:
        """The published contract, if there is one.

        A publication that was committed and not finished counts, as does one whose ``contract.json`` was lost.

        Raises:
            ContractError: it cannot be read.
        """
        revisions = self._revisions()
        held = self._contract(CONTRACT_FILE)
        if revisions and (held is None or held.publication.revision < revisions[-1]):
            return self._contract(_path(revisions[-1]))
        return held

    def refuse_foreign(self, name: str) -> None:
        """Make sure that the folder is empty, or holds this data set.

        Args:
            name: the data set's name.

        Raises:
            ContractError: it holds another data set, or files and no data set.
        """
        contract = self.contract() or self.draft()
        if contract is not None:
            if contract.name != name:
                raise ContractError(
                    f"{self.folder}: holds the data set {contract.name!r}, and the configuration is of {name!r}; name another folder "
                    f"as samples, or say `name: {contract.name}`"
                )
            return
        others = [child for child in self._files.children(self.folder) if child not in _BEGUN]
        if others:
            raise ContractError(
                f"{self.folder}: not empty, and holds no samples ({', '.join(others[:3])}{' ...' * (len(others) > 3)}); name an empty "
                "folder, or one that is not there yet, as samples"
            )

    def draft(self) -> Contract | None:
        """Days that were built and not published: whole where :meth:`damaged` finds nothing; None where there are none."""
        try:
            return self._contract(f"{CONTRACTS}/{DRAFT}")
        except ContractError as error:
            log.warning("%s; what it held is built again", error)
            return None

    def generations(self) -> list[Generation]:
        """The generations that are kept, the oldest first."""
        published = self.contract()
        history = self._history()
        kept = [history[revision] for revision in sorted(self._kept(history))]
        latest = {c.publication.generation: c for c in [*kept, published] if c is not None}
        ordered = sorted(latest.values(), key=lambda contract: contract.publication.revision)
        number = published.publication.generation if published is not None else None
        return [Generation(contract, contract.publication.generation == number) for contract in ordered]

    def next_generation(self) -> int:
        """A number that no generation of this folder has."""
        draft = self.draft()
        numbers = [g.number for g in self.generations()] + ([draft.publication.generation] if draft is not None else [])
        return max(numbers, default=0) + 1

    def damaged(self, contract: Contract, *, verify: bool = False, but: Collection[str] = ()) -> dict[str, str]:
        """The files of a contract that are not what it says: what is wrong by path.

        Args:
            contract: which names files.
            verify: whether to read them and compare checksums; else sizes are compared.
            but: files that are not looked at.
        """
        found = {}
        sums = {file.path: file.sha256 for day in contract.days for file in day.named_files}
        sums |= {v.path: v.sha256 for v in contract.vocabularies if v.path is not None and v.sha256 is not None}
        for path, size in contract.named_files.items():
            if path in but:
                continue
            info = self._files.info(f"{self.folder}/{path}")
            if info is None:
                found[path] = "is missing"
            elif size is not None and info.size != size:
                found[path] = f"has {info.size} bytes in place of {size}"
            elif verify and self._files.sha256(f"{self.folder}/{path}") != sums[path]:
                found[path] = "has another checksum"
        return found

    def commit(self, draft: Contract, staged: Mapping[str, str], contents: Mapping[str, bytes], lock: DatasetLock) -> None:
        """Bring finished days to their places, and keep the contract that names them as the draft.

        Args:
            draft: what is finished; it names all of the files.
            staged: written files, their names in the data set by their paths.
            contents: small files that are not written yet, by their names in the data set.
            lock: the right to write.

        Raises:
            DatasetLockedError: the lock was lost: what is there is another build's now, and nothing of it was touched.
        """
        lock.check()
        # the draft comes first: a file that nothing names would never be removed
        before = self.draft()
        self._write(f"{CONTRACTS}/{DRAFT}", draft)
        if before is not None:
            self._remove_unnamed(before, draft)
        for path, name in staged.items():
            self._files.replace(path, f"{self.folder}/{name}")
        for name, content in contents.items():
            self._files.write(f"{self.folder}/{name}", content)

    def publish(self, contract: Contract, lock: DatasetLock) -> Contract:
        """Make a contract whose files are all in place the data set's.

        Args:
            contract: its generation is said; its revision and fencing token are set here.
            lock: the right to publish.

        Returns:
            The published contract.

        Raises:
            DatasetLockedError: the lock was lost, or another build published meanwhile.
            ContractError: a file that the contract names and the published one does not is not there.
        """
        lock.check()
        published = self.contract()
        known = published.named_files if published is not None else {}
        damaged = self.damaged(contract, but=known)
        if damaged:
            path, what = next(iter(damaged.items()))
            raise ContractError(f"{self.folder}/{path}: {what} though it was just written; nothing was published: build again")
        if published is not None and not self._revisions():  # of a release that kept none
            self._files.create(f"{self.folder}/{_path(0)}", published.to_json().encode())
        revision = max([*self._revisions(), published.publication.revision if published is not None else 0]) + 1
        place = Publication(generation=contract.publication.generation, revision=revision, fencing_token=lock.token)
        contract = contract.model_copy(update={"version": 3, "publication": place})
        lock.check()
        if not self._files.create(f"{self.folder}/{_path(revision)}", contract.to_json().encode()):
            raise DatasetLockedError(f"{self.folder}/{_path(revision)}: another build published meanwhile; build again")
        self._write(CONTRACT_FILE, contract)
        self._discard_draft()
        self.clean()
        return contract

    def rollback(self, generation: int | None, lock: DatasetLock) -> Contract:
        """Publish the latest contract of an earlier generation again.

        Args:
            generation: its number; the one before the published one if not given.
            lock: the right to publish.

        Raises:
            ContractError: there is no such generation, or a file of it is missing.
        """
        kept = self.generations()
        others = [g for g in kept if not g.current]
        wanted = [g for g in others if generation is None or g.number == generation]
        if not wanted:
            available = ", ".join(f"{g.number}{' (published)' if g.current else ''}" for g in kept) or "none"
            which = "an earlier generation" if generation is None else f"generation {generation} to go back to"
            raise ContractError(f"{self.folder}: there is not {which}; the generations there are {available}")
        contract = wanted[-1].contract
        damaged = self.damaged(contract)
        if damaged:
            path, what = next(iter(damaged.items()))
            raise ContractError(
                f"{self.folder}/{path}: {what}, and {len(damaged) - 1} more files of generation {contract.publication.generation}; it "
                "cannot be published again: build with its configuration"
            )
        return self.publish(contract, lock)

    def recover(self) -> Contract | None:
        """Bring the folder to the state of the latest publication, and remove what stopped builds left.

        Only the holder of the lock may do that.

        Returns:
            The published contract.
        """
        published = self.contract()
        if published is not None:
            held = self._contract(CONTRACT_FILE)
            if held is None or held.publication.revision < published.publication.revision:
                log.warning("%s: was not that of the latest publication, and is again", f"{self.folder}/{CONTRACT_FILE}")
                self._write(CONTRACT_FILE, published)
            draft = self.draft()
            published_before = {generation.number for generation in self.generations()}
            if (
                draft is not None
                and draft.publication.generation in published_before
                and draft.publication != published.publication
            ):
                self._discard_draft()  # for a publication before this one
        self.clean()
        return published

    def discard_draft(self, generation: int, lock: DatasetLock) -> None:
        """Remove what was prepared for a generation, if anything was.

        Raises:
            DatasetLockedError: the lock was lost.
        """
        lock.check()
        draft = self.draft()
        if draft is not None and draft.publication.generation == generation:
            self._discard_draft()

    def staging(self, process: str) -> str:
        """Where a process writes its files first."""
        return f"{self.folder}/{STAGING}/{process}"

    def remove_staging(self, staging: str) -> None:
        """Remove what a process has written first."""
        self._files.remove(staging)
        self._files.remove_empty(f"{self.folder}/{STAGING}")

    def clean(self) -> None:
        """Remove the staging folders, and the files of publications that are not kept any more."""
        for name in self._files.children(f"{self.folder}/{STAGING}"):
            if _PROCESS.fullmatch(name):
                self._files.remove(f"{self.folder}/{STAGING}/{name}")
        self._files.remove_empty(f"{self.folder}/{STAGING}")
        history = self._history()
        kept = self._kept(history)
        for revision, contract in history.items():
            if revision not in kept and contract is not None:
                self._remove_unnamed(contract, self.draft())
                self._files.remove(f"{self.folder}/{_path(revision)}")

    def read(self, path: str) -> bytes:
        """Read a small file, its path relative to the data set."""
        return self._files.read_bytes(f"{self.folder}/{path}")

    def _history(self) -> dict[int, Contract | None]:
        """All publications that are there, by revision; None where one cannot be read."""
        history: dict[int, Contract | None] = {}
        for revision in self._revisions():
            try:
                history[revision] = self._contract(_path(revision))
            except ContractError as error:
                log.warning("%s; nothing is removed from this folder until that file is restored or taken away", error)
                history[revision] = None
        return history

    def _kept(self, history: Mapping[int, Contract | None]) -> set[int]:
        """The publications of the last two builds, and the last one of each of the latest generations.

        A build publishes several times where it makes many days: who read the contract before it began, or while the build before it was
        at work, can go on reading.
        """
        builds: dict[int, list[int]] = defaultdict(list)
        generations: dict[int, int] = {}
        for revision, contract in history.items():
            if contract is None:
                return set(history)  # what it names is not known
            builds[contract.publication.fencing_token].append(revision)
            generations[contract.publication.generation] = revision
        newest_builds = sorted(builds.values())[-2:]
        return {
            *(revision for build_revisions in newest_builds for revision in build_revisions),
            *sorted(generations.values())[-self._keep :],
        }

    def _discard_draft(self) -> None:
        draft = self.draft()
        if draft is not None:
            self._remove_unnamed(draft, draft=None)
        self._files.remove(f"{self.folder}/{CONTRACTS}/{DRAFT}")

    def _remove_unnamed(self, contract: Contract, draft: Contract | None) -> None:
        """Remove the files of a contract that neither the draft nor a contract that is kept names."""
        history = self._history()
        kept = [history[revision] for revision in self._kept(history)]
        others = [self._contract(CONTRACT_FILE), draft, *kept]
        if None in kept:
            return
        named = {path for other in others if other is not None for path in other.named_files}
        for path in contract.named_files:
            if path not in named and _is_inside(path):
                self._files.remove(f"{self.folder}/{path}")

    def _revisions(self) -> list[int]:
        names = self._files.children(f"{self.folder}/{CONTRACTS}")
        return sorted(int(found[1]) for name in names if (found := _REVISION.fullmatch(name)))

    def _contract(self, path: str) -> Contract | None:
        place = f"{self.folder}/{path}"
        if self._files.info(place) is None:
            return None
        try:
            text = self._files.read_bytes(place).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ContractError(f"{place}: not UTF-8 text ({error}); it is damaged") from error
        return Contract.from_json(text, place)

    def _write(self, path: str, contract: Contract) -> None:
        self._files.write(f"{self.folder}/{path}", contract.to_json().encode())


def _path(revision: int) -> str:
    return f"{CONTRACTS}/{revision:06d}.json"


def _is_inside(path: str) -> bool:
    """Whether a path that a contract names lies in its folder."""
    return not path.startswith("/") and ":" not in path.partition("/")[0] and ".." not in path.split("/")
