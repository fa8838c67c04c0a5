"""The whole recipe: questions → tokenizer → training → export → evaluation → model card."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from models.demo.language.corpus import training_items

_TOKENIZER_ITEMS, _TOKENIZER_SEED = 30_000, 99
_WEIGHTS = Path(__file__).parents[2] / "weights" / "gemma3-demo"


def main() -> None:
    """Run the recipe as the command line asks."""
    options = _options()
    if not options.evaluate_only:
        _train(options)
    if not options.train_only:
        _evaluate(options.out, options.work)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m models.demo.language", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long to train")
    parser.add_argument("--out", type=Path, default=_WEIGHTS, help="the folder of the weights")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/demo-language"),
        help="where the tokenizer and checkpoints are kept",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--evaluate-only", action="store_true", help="ask and write the card")
    parser.add_argument("--train-only", action="store_true", help="leave the card as it is")
    return parser.parse_args()


def _train(options: argparse.Namespace) -> None:
    from tokenizers import Tokenizer

    from models.demo.language.export import export
    from models.demo.language.network import Shape
    from models.demo.language.tokenizer import train_tokenizer
    from models.demo.language.train import Plan, train

    options.work.mkdir(parents=True, exist_ok=True)
    kept = options.work / "tokenizer.json"
    if options.resume and kept.exists():
        tokenizer = Tokenizer.from_file(str(kept))
    else:
        tokenizer = train_tokenizer(_texts())
        tokenizer.save(str(kept))
    shape = Shape(vocab_size=tokenizer.get_vocab_size())
    progress = train(
        Plan(minutes=options.minutes, seed=options.seed, threads=options.threads),
        shape,
        tokenizer,
        options.work / "state.pt",
        options.resume,
        lambda weights: export(options.out, weights, tokenizer, shape),
    )
    run = {"minutes": progress.seconds / 60, "steps": progress.step, "tokens": progress.tokens}
    (options.work / "run.json").write_text(json.dumps(run), encoding="utf-8")


def _texts() -> Iterator[str]:
    for item in islice(training_items(_TOKENIZER_SEED), _TOKENIZER_ITEMS):
        yield from (message["content"] for message in item.messages)
        yield item.answer


def _evaluate(folder: Path, work: Path) -> None:
    from models.demo.language.card import write_card
    from models.demo.language.evaluate import evaluate, total

    evaluation = evaluate(folder)
    run = json.loads((work / "run.json").read_text(encoding="utf-8"))
    write_card(folder, evaluation, run)
    for item, answer, reason in evaluation.failures:
        print(f"- {item.language} {item.kind}: {item.question}\n  {answer}\n  {reason}")
    for (task, language), score in evaluation.model.items():
        print(f"{task} {language}: {score}, look-up {evaluation.baseline[task, language]}")
    print(f"all: {total(evaluation.model.values())}", end=", ")
    print(f"look-up {total(evaluation.baseline.values())}")


if __name__ == "__main__":
    main()
