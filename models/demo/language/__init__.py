"""The demo language model's recipe: facts, questions, tokenizer, training, export and grading.

`python -m models.demo.language` runs it whole. Benchmarks need only `held_out_items`, `grade`
and `NearestNeighbour`, which import neither torch nor MLX.
"""

from models.demo.language.corpus import held_out_items
from models.demo.language.grade import Grade, NearestNeighbour, grade
from models.demo.language.items import Item

__all__ = ["Grade", "Item", "NearestNeighbour", "grade", "held_out_items"]
