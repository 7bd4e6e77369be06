"""Messages through the model: what all lanes of a runner share."""

from collections.abc import Sequence

from modelyard.runtime.scoring.scored_model import ScoredModel
from modelyard.runtime.scoring.scorer import Scorer
from modelyard.runtime.streams.encode import Codec
from modelyard.runtime.streams.records import Group, Message
from modelyard.wire.work import StreamWork

MOST_ROWS_AT_ONCE = 4096
"""In one call of the model: more take no less time each, and hold up everything else."""


class Bench:
    """One model, asked by one lane at a time."""

    def __init__(self, work: StreamWork, model: ScoredModel, codec: Codec) -> None:
        self.work = work
        self._model = model
        self._codec = codec

    async def score(self, messages: Sequence[Message], *, careful: bool, most_bytes: int) -> Group:
        """Every record of the messages as an output or a dead letter.

        careful: with the model in a process of its own. most_bytes: of a message that the sink takes, 0: any. Raises
        what models raise.
        """
        decoded = self._codec.decode(messages)
        backend = await self._model.backend(careful=careful)
        scorer = Scorer(backend, self._codec.mapping, self._model.outputs, MOST_ROWS_AT_ONCE)
        async with self._model.turn:
            scored = await scorer.score(decoded.batch)
        encoded = self._codec.encode(decoded, scored, most_bytes)
        return Group(
            messages=tuple(messages),
            outgoing=encoded.outgoing,
            records=encoded.records,
            dead_letters=encoded.dead_letters,
            tables=() if encoded.table is None else (encoded.table,),
        )

    def give_up(self, message: Message) -> Group:
        """A message that has ended too many runners, as a dead letter."""
        return Group(messages=(message,), outgoing=(self._codec.give_up(message),), records=1, dead_letters=1)


def joined(groups: Sequence[Group]) -> Group:
    """One group of several that follow each other."""
    if len(groups) == 1:
        return groups[0]
    return Group(
        messages=tuple(each for group in groups for each in group.messages),
        outgoing=tuple(each for group in groups for each in group.outgoing),
        records=sum(each.records for each in groups),
        dead_letters=sum(each.dead_letters for each in groups),
        tables=tuple(each for group in groups for each in group.tables),
    )
