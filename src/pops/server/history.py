"""The history: what a person asked for, the newest first, found again by words and operators."""

from __future__ import annotations

from pops.server.store import Job, Store


def history(
    store: Store,
    text: str = "",
    operator: str = "",
    before: int | None = None,
    limit: int = 50,
    *,
    favourite: bool = False,
) -> list[Job]:
    """Returns jobs that are no previews, the newest first, those before the place `before`.

    text: words that all stand in the expression or in the names of its photos; operator: one that it uses.
    """
    where, values = ["place IS NOT NULL"], list[object]()
    for word in text.lower().split():
        where.append("instr(words, ?) > 0")
        values.append(word.encode("utf-8", "replace").decode())
    if operator:
        where.append("EXISTS (SELECT 1 FROM json_each(operators) WHERE value = ?)")
        values.append(operator.encode("utf-8", "replace").decode())
    if before is not None:
        where.append("place < ?")
        values.append(before)
    if favourite:
        where.append("favourite")
    return store.found(f"{' AND '.join(where)} ORDER BY place DESC LIMIT ?", *values, limit)


def favour(store: Store, job: str, *, favourite: bool) -> None:
    """Makes a job a favourite, or one no more; a preview that is one belongs to the history."""
    with store.change() as db:
        db.execute("UPDATE jobs SET favourite = ? WHERE id = ?", (int(favourite), job))
    if favourite:
        store.promote(job)
