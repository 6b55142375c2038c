"""Chat turns of a stranger's row, checked, and cut into what is given and what is learnt.

The last assistant turn is the completion, everything before it is the prompt, and turns after it are
dropped: TRL then trains on that answer alone. (With a whole conversation as one text it would train on
the questions too, unless the template marks the answers.)
"""

from __future__ import annotations

from harness.worker.data.cutting import Row, Unusable

# The names that datasets give to the roles of a chat.
ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


def chat_turns(value: object, column: str, role: str, content: str) -> list[dict[str, str]]:
    """Return a column's turns under TRL's names; `role` and `content` are the column's own names.

    Raises: Unusable if it is no list of turns, or one has an unknown role or no text.
    """
    if not isinstance(value, list) or not value:
        raise Unusable(f"its `{column}` holds no turns")
    turns = []
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, dict):
            raise Unusable(f"turn {number} of its `{column}` is no turn")
        name, text = turn.get(role), turn.get(content)
        if name not in ROLES:
            raise Unusable(
                f"turn {number} has the role {str(name)[:40]!r}; expected system, user or assistant"
            )
        if not isinstance(text, str) or not text.strip():
            raise Unusable(f"turn {number} ({ROLES[name]}) is empty")
        turns.append({"role": ROLES[name], "content": text})
    return turns


def answered_row(turns: list[dict[str, str]]) -> Row:
    """Return TRL's prompt-completion columns.

    Raises: Unusable if no assistant turn answers a user turn.
    """
    roles = [turn["role"] for turn in turns]
    if "assistant" not in roles:
        raise Unusable("no assistant turn")
    last = len(roles) - 1 - roles[::-1].index("assistant")
    if "user" not in roles[:last]:
        raise Unusable("no user turn before the last assistant turn")
    return {"prompt": turns[:last], "completion": [turns[last]]}
