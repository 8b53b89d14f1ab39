"""What each pretext task hides, predicts and must not leak (the ten checks of the field, single-process part)."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from raysl.data.config import TokenizerConfig
from raysl.data.tokens import train_tokenizer
from raysl.data.words import word_starts
from raysl.errors import ConfigError
from raysl.models.config import BertConfig, GptConfig
from raysl.models.text import CLS, MASK, PAD, SEP, Bert, Gpt
from raysl.objectives.base import Uniform, as_tensors, document_numbers, pad
from raysl.objectives.bert import Bert as BertObjective
from raysl.objectives.config import BertConfig as BertObjectiveConfig
from raysl.objectives.config import ContrastiveTextConfig
from raysl.objectives.config import GptConfig as GptObjectiveConfig
from raysl.objectives.contrast import nt_xent_sum, send_views
from raysl.objectives.contrastive_text import ContrastiveText
from raysl.objectives.gpt import Gpt as GptObjective
from raysl.objectives.masking import IGNORED, hidden_places, mask_tokens
from raysl.objectives.views import title_and_span, two_spans
from raysl.train.batches import uniform_for

VOCAB = 60


def uniform_of(rows: int, seed: int = 0) -> Uniform:
    return Uniform(np.random.default_rng(seed), rows, np.arange(rows))


def encoder(kind: type, config: type, **settings: object):
    torch.manual_seed(0)
    return kind(config(width=32, num_heads=4, num_layers=2, context_length=16, **settings), VOCAB).eval()


def test_masking_hides_the_share_it_says_and_never_special_tokens() -> None:
    tokens = np.random.default_rng(0).integers(0, 1000, (200, 1000))
    inputs, labels = mask_tokens(tokens, 0.15, 1000, np.random.default_rng(1).random((200, 3000)))
    chosen, ordinary = labels != IGNORED, tokens >= 5
    assert not (chosen & ~ordinary).any()
    assert chosen.sum() / ordinary.sum() == pytest.approx(0.15, abs=0.003)
    assert (labels[chosen] == tokens[chosen]).all()
    assert (inputs[~chosen] == tokens[~chosen]).all()
    hidden, swapped = inputs[chosen] == MASK, (inputs[chosen] != MASK) & (inputs[chosen] != tokens[chosen])
    assert hidden.mean() == pytest.approx(0.8, abs=0.01)
    assert swapped.mean() == pytest.approx(0.1, abs=0.01)
    assert (inputs[chosen][swapped] >= 5).all()


def test_document_numbers_change_after_each_separator() -> None:
    assert document_numbers(np.array([[7, SEP, 8, 9, SEP, 6]]), SEP).tolist() == [[0, 0, 1, 1, 1, 2]]


@pytest.mark.parametrize(("kind", "config"), [(Bert, BertConfig), (Gpt, GptConfig)])
def test_a_packed_document_does_not_see_its_neighbour_and_positions_restart(kind: type, config: type) -> None:
    model = encoder(kind, config)
    alone = torch.tensor([[20, 21, 22, SEP]])
    packed = torch.tensor([[10, 11, 12, 13, SEP, 20, 21, 22, SEP]])
    numbers = torch.from_numpy(document_numbers(packed.numpy(), SEP))
    with torch.no_grad():
        vectors = model.encode(packed, numbers)
        changed = packed.clone()
        changed[0, 1] = 40
        assert torch.equal(model.encode(changed, numbers)[0, 5:], vectors[0, 5:])
        torch.testing.assert_close(vectors[:, 5:], model.encode(alone, torch.zeros_like(alone)), atol=1e-6, rtol=1e-5)


def test_gpt_does_not_see_what_comes_after() -> None:
    model = encoder(Gpt, GptConfig)
    tokens = torch.arange(10, 20)[None]
    changed = tokens.clone()
    changed[0, 6] = 50
    with torch.no_grad():
        before, after = model.encode(tokens, torch.zeros_like(tokens)), model.encode(changed, torch.zeros_like(tokens))
    assert torch.equal(before[0, :6], after[0, :6])
    assert not torch.equal(before[0, 6:], after[0, 6:])


def test_cached_generation_equals_the_whole_sequence() -> None:
    model = encoder(Gpt, GptConfig)
    tokens = torch.arange(10, 20)[None]
    with torch.no_grad():
        whole = model.vocabulary_logits(model.encode(tokens, torch.zeros_like(tokens)))[:, -1]
        past = torch.zeros(2, 1, 4, 0, 8)
        logits, keys, values = model.forward_cached(tokens[:, :7], past, past)
        for place in range(7, 10):
            logits, keys, values = model.forward_cached(tokens[:, place : place + 1], keys, values)
    torch.testing.assert_close(logits, whole, atol=1e-5, rtol=1e-5)
    assert keys.shape == (2, 1, 4, 10, 8)


def test_gpt_predicts_no_document_border_and_no_padding() -> None:
    objective = GptObjective(GptObjectiveConfig(), encoder(Gpt, GptConfig))
    batch = objective.collate([np.array([10, 11, SEP, 12, 13, SEP], np.int32)], uniform_of(1))
    assert batch["labels"][0, :6].tolist() == [11, SEP, IGNORED, 13, SEP, IGNORED]
    assert (batch["labels"][0, 6:] == IGNORED).all()
    assert objective.targets(batch).tolist() == [4]


def test_packed_loss_is_the_mean_over_documents_run_alone() -> None:
    objective = GptObjective(GptObjectiveConfig(), encoder(Gpt, GptConfig))
    documents = [[10, 11, 12, SEP], [20, 21, SEP]]
    packed = objective.collate([np.array([*documents[0], *documents[1]], np.int32)], uniform_of(1))
    alone = [objective.collate([np.array(document, np.int32)], uniform_of(1)) for document in documents]
    total = sum(objective.targets(batch) for batch in alone)
    with torch.no_grad():
        together = objective(packed, objective.targets(packed)).loss
        apart = sum(objective(batch, total).loss for batch in alone)
    assert together == pytest.approx(float(apart), abs=1e-5)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (GptObjective(GptObjectiveConfig(), encoder(Gpt, GptConfig)), math.log(VOCAB)),
        (BertObjective(BertObjectiveConfig(mask_share=0.5), encoder(Bert, BertConfig)), math.log(VOCAB)),
    ],
)
def test_untrained_loss_is_that_of_guessing(objective: torch.nn.Module, expected: float) -> None:
    generator = np.random.default_rng(0)
    rows = [generator.integers(5, VOCAB, 16).astype(np.int32) for _ in range(32)]
    batch = objective.collate(rows, uniform_of(32))
    with torch.no_grad():
        assert float(objective(batch, objective.targets(batch)).loss) == pytest.approx(expected, rel=0.05)


def test_contrast_of_unrelated_views_is_that_of_guessing() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.nn.functional.normalize(torch.randn(64, 4096, generator=generator), dim=-1) for _ in range(2))
    loss = float(nt_xent_sum(first, second, send_views(first, second, 64), 1.0)) / 128
    assert loss == pytest.approx(math.log(2 * 64 - 1), rel=0.01)


def test_contrast_by_hand() -> None:
    """Two rows whose views agree: similarity 1 to the other view, 0 to the two negatives."""
    first, second = torch.eye(2), torch.eye(2)
    expected = -math.log(math.e / (math.e + 2))
    assert float(nt_xent_sum(first, second, send_views(first, second, 2), 1.0)) / 4 == pytest.approx(expected, abs=1e-6)


def test_embeddings_and_their_similarities_are_not_rounded_to_bf16() -> None:
    """Under autocast, which rounds products: at a low temperature that moves the loss."""
    inputs = torch.randint(5, VOCAB, (64, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        embeddings = encoder(Bert, BertConfig).embed(inputs)
        first, second = embeddings.chunk(2)
        loss = nt_xent_sum(first, second, send_views(first, second, 32), 0.05)
    assert embeddings.dtype == torch.float32
    assert (embeddings != embeddings.bfloat16().float()).float().mean() > 0.9
    assert float(loss) == float(nt_xent_sum(first, second, send_views(first, second, 32), 0.05))


def test_spans_come_from_one_document_and_do_not_overlap() -> None:
    documents = [np.arange(100, 100 + size, dtype=np.int32) for size in (16, 40, 300)]
    first, second = two_spans(documents, 32, np.random.default_rng(0).random((3, 3)))
    for row, document in enumerate(documents):
        size = min(32, len(document) // 2)
        a, b = set(first[row][first[row] > 0]), set(second[row][second[row] > 0])
        assert len(a) == len(b) == size
        assert not a & b
        assert (a | b) <= set(document)


def test_a_title_and_a_span_of_its_body_are_the_views_where_there_is_a_title() -> None:
    titled, untitled = [*range(50, 53), SEP, *range(100, 140), SEP], [*range(200, 240), SEP]
    documents = [np.array(tokens, np.int32) for tokens in (titled, untitled, titled)]
    uniform = np.array([[0.0, 0, 0.9], [0.2, 0.7, 0.9], [0.999, 0, 0.1]])
    first, second = title_and_span(documents, 8, uniform)
    assert first[0].tolist() == second[2].tolist() == [50, 51, 52, 0, 0, 0, 0, 0]
    assert second[0].tolist() == list(range(100, 108))
    assert first[2].tolist() == [*range(133, 140), SEP]
    spans = two_spans(documents, 8, uniform)
    assert (first[1].tolist(), second[1].tolist()) == (spans[0][1].tolist(), spans[1][1].tolist())
    assert title_and_span([np.array([*range(50, 70), SEP, *range(100, 103), SEP])], 8, uniform[:1])[1].tolist() == [
        [100, 101, 102, SEP, 0, 0, 0, 0]
    ]


def test_a_title_finds_its_body() -> None:
    """The objective reads titled rows, and learns from them what spans do not hold: titles share no word with bodies."""
    objective = ContrastiveText(ContrastiveTextConfig(views="title", span_length=8), encoder(Bert, BertConfig))
    assert objective.row_kind == "titled"
    rows = [np.array([10 + n, SEP, *[20 + n] * 9, SEP], np.int32) for n in range(8)]
    optimizer = torch.optim.Adam(objective.parameters(), 0.01)
    for step in range(60):
        batch = objective.collate(rows, uniform_for(0, step, 8, np.arange(8)))
        optimizer.zero_grad()
        objective(batch, objective.targets(batch)).loss.backward()
        optimizer.step()
    with torch.no_grad():
        titles, bodies = (
            objective.embed(torch.tensor(tokens))
            for tokens in ([[10 + n] for n in range(8)], [[20 + n] * 8 for n in range(8)])
        )
    assert (titles @ bodies.T).argmax(1).tolist() == list(range(8))


def test_hidden_words_add_a_second_part_to_the_contrast() -> None:
    config = ContrastiveTextConfig(span_length=8, hidden_words_weight=0.5, hidden_words_rows=1.0)
    objective = ContrastiveText(config, encoder(Bert, BertConfig))
    rows = [np.random.default_rng(n).integers(5, VOCAB, 30).astype(np.int32) for n in range(8)]
    batch = objective.collate(rows, uniform_of(8))
    output = objective(batch, objective.targets(batch))
    parts = {name: float(value) for name, value in output.metrics.items()}
    assert output.loss.item() == pytest.approx(parts["contrast"] + 0.5 * parts["hidden_words"], abs=1e-5)


def test_the_rows_with_hidden_words_are_the_same_on_any_number_of_ranks() -> None:
    """Of 10 rows 2: three ranks hide words in the first row of two of them, and in none of the third."""
    config = ContrastiveTextConfig(span_length=8, hidden_words_weight=0.5, hidden_words_rows=0.2)
    objective = ContrastiveText(config, encoder(Bert, BertConfig))
    rows = [np.random.default_rng(n).integers(5, VOCAB, 30).astype(np.int32) for n in range(10)]

    def collated(step: int, rank: int, ranks: int) -> dict[str, torch.Tensor]:
        places = np.arange(rank, 10, ranks)
        return objective.collate([rows[place] for place in places], uniform_for(1, step, 10, places))

    for step in range(5):
        alone, parts = collated(step, 0, 1), [collated(step, rank, 3) for rank in range(3)]
        labels = torch.cat([part["labels"] for part in parts])
        assert torch.equal(labels[:2], alone["labels"])
        assert (labels[2:] == IGNORED).all()
    objective(parts[2], objective.targets(alone)).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())


def test_embedding_ignores_padding_and_reads_long_documents_in_windows() -> None:
    model = encoder(Bert, BertConfig)
    short = np.array([10, 11, 12, SEP], np.int32)
    with torch.no_grad():
        alone = model.embed(torch.from_numpy(pad([short])))
        beside = model.embed(torch.from_numpy(pad([short, np.arange(5, 45, dtype=np.int32)])))
        long = model.embed(torch.full((1, 40), CLS))
    torch.testing.assert_close(alone[0], beside[0], atol=1e-6, rtol=1e-5)
    assert float(alone.norm()) == pytest.approx(1.0, abs=1e-5)
    assert torch.isfinite(long).all()
    assert torch.isfinite(model.embed(torch.full((1, 4), PAD))).all()


def test_rows_of_one_document_need_no_mask_and_compute_the_same() -> None:
    objective = GptObjective(GptObjectiveConfig(), encoder(Gpt, GptConfig))
    rows = [np.random.default_rng(n).integers(5, VOCAB, 17 - n).astype(np.int32) for n in range(3)]
    plain = objective.collate(rows, uniform_of(3))
    assert "documents" not in plain
    masked = plain | {"documents": torch.zeros_like(plain["tokens"])}
    losses = [objective(batch, objective.targets(batch)).loss for batch in (plain, masked)]
    assert torch.equal(plain["labels"][2, -1:], torch.tensor([IGNORED]))
    torch.testing.assert_close(losses[0], losses[1], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("kind", "config"), [(Bert, BertConfig), (Gpt, GptConfig)])
def test_no_gradient_crosses_a_document_border_or_comes_from_what_follows(
    kind: type, config: type, precision: torch.dtype
) -> None:
    """The same as above on the paths that training takes: the gradient of one document's vectors in the others is 0.0."""
    model = encoder(kind, config).to(precision)
    tokens = torch.tensor([[10, 11, 12, 13, SEP, 20, 21, 22, SEP]])
    numbers = torch.from_numpy(document_numbers(tokens.numpy(), SEP))
    seen: list[torch.Tensor] = []
    model.tokens.register_forward_hook(lambda module, given, out: seen.append(out))
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    vectors = model.encode(tokens, numbers)
    (gradient,) = torch.autograd.grad(vectors[0, 6].float() @ direction, seen[0])
    assert (gradient[0, :5] == 0.0).all()
    assert (gradient[0, 5:7] != 0.0).any(-1).all()
    assert (gradient[0, 7:] == 0.0).all() == (kind is Gpt)
    if kind is Gpt:
        (gradient,) = torch.autograd.grad(model.encode_whole(tokens)[0, 3].float() @ direction, seen[-1])
        assert (gradient[0, 4:] == 0.0).all()


def test_hidden_words_alone_go_through_the_last_layers_and_come_out_the_same() -> None:
    model = encoder(Bert, BertConfig)
    tokens = torch.tensor([[10, 11, 12, SEP, 20, 21, SEP], [30, 31, SEP, PAD, PAD, PAD, PAD]])
    numbers = torch.from_numpy(document_numbers(tokens.numpy(), SEP))
    hidden = torch.rand(2, 7, generator=torch.Generator().manual_seed(0)) < 0.5
    places = hidden.flatten().nonzero()[:, 0]
    torch.testing.assert_close(model.encode(tokens, numbers, at=places), model.encode(tokens, numbers)[hidden])


def test_whole_words_are_hidden_together_or_not_at_all() -> None:
    generator = np.random.default_rng(0)
    starts = generator.random(1000) < 0.4
    tokens = generator.integers(0, 1000, (200, 500))
    _, labels = mask_tokens(tokens, 0.15, 1000, generator.random((200, 1500)), starts)
    begins = starts[tokens] | (tokens < 5)
    begins[:, 0] = True
    word = np.cumsum(begins.ravel())
    chosen, ordinary = (labels != IGNORED).ravel(), (tokens >= 5).ravel()
    pieces, hidden = np.bincount(word, ordinary), np.bincount(word, chosen)
    assert ((hidden == 0) | (hidden == pieces)).all()
    assert chosen.sum() / ordinary.sum() == pytest.approx(0.15, abs=0.01)


def test_bert_hides_whole_words_where_the_config_says(tmp_path: Path) -> None:
    texts = ["The parser reads unreadable files.", "Unread files are parsed by parsers."] * 20
    tokenizer = train_tokenizer(iter(texts), TokenizerConfig(vocab_size=300))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    model = Bert(BertConfig(width=16, num_heads=2, context_length=16), tokenizer.get_vocab_size())
    objective = BertObjective(BertObjectiveConfig(mask_share=0.4, whole_words=True), model)
    objective.look_up(lambda name: tmp_path / name)
    row = np.array(tokenizer.encode("unparsed reader unreads", add_special_tokens=False).ids, np.int32)
    assert len(row) <= 16
    hidden = (objective.collate([row] * 200, uniform_of(200))["labels"] != IGNORED).numpy()[:, : len(row)]
    pieces = np.split(hidden, np.flatnonzero(word_starts(tmp_path / "tokenizer.json")[row]), axis=1)[1:]
    assert max(piece.shape[1] for piece in pieces) > 2
    assert all((piece.all(1) | ~piece.any(1)).all() for piece in pieces)
    assert hidden.mean() == pytest.approx(0.4, abs=0.05)


def test_hidden_words_are_predicted_from_their_own_document_alone() -> None:
    """Check 6 through the whole loss: a changed neighbour changes it by exactly 0.0, and no neighbour by nothing."""
    objective = BertObjective(BertObjectiveConfig(), encoder(Bert, BertConfig))

    def loss(tokens: list[int]) -> torch.Tensor:
        array = np.array([tokens])
        labels = np.where(array == MASK, 21, IGNORED)
        batch = as_tensors(tokens=array, labels=labels, documents=document_numbers(array, SEP), hidden=hidden_places(labels))
        with torch.no_grad():
            return objective(batch, objective.targets(batch)).loss

    own = [20, MASK, 22, SEP]
    packed = loss([10, 11, 12, 13, SEP, *own])
    assert torch.equal(packed, loss([10, 40, 12, 13, SEP, *own]))
    assert float(packed) == pytest.approx(float(loss(own)), abs=1e-5)


@pytest.mark.parametrize("kind", ["bert", "gpt", "contrastive_text"])
def test_what_is_embedded_is_the_row_as_it_is(kind: str) -> None:
    """Check 10: nothing hidden, swapped or cut, and the encoder's own embedding."""
    model = encoder(Gpt, GptConfig) if kind == "gpt" else encoder(Bert, BertConfig)
    objective = {
        "bert": lambda: BertObjective(BertObjectiveConfig(mask_share=0.9), model),
        "gpt": lambda: GptObjective(GptObjectiveConfig(), model),
        "contrastive_text": lambda: ContrastiveText(ContrastiveTextConfig(span_length=8), model),
    }[kind]()
    rows = [np.arange(5, 5 + size, dtype=np.int32) for size in (3, 16, 30)]
    inputs = objective.inputs(rows)
    assert [row[row != PAD].tolist() for row in inputs] == [row.tolist() for row in rows]
    with torch.no_grad():
        assert torch.equal(objective.embed(inputs), model.embed(inputs))


def test_masks_differ_between_epochs_and_are_the_same_after_a_resume() -> None:
    objective = BertObjective(BertObjectiveConfig(), encoder(Bert, BertConfig))
    rows = [np.random.default_rng(n).integers(5, VOCAB, 16).astype(np.int32) for n in range(32)]
    places = np.arange(32)
    first, again, later = (objective.collate(rows, uniform_for(3, step, 32, places))["labels"] for step in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


@pytest.mark.parametrize(
    ("objective", "config", "model", "message"),
    [
        (GptObjective, GptObjectiveConfig(), Bert, r"'gpt' trains a model of class Gpt .*, got Bert"),
        (BertObjective, BertObjectiveConfig(), Gpt, r"'bert' trains a model of class Bert .*, got Gpt"),
        (ContrastiveText, ContrastiveTextConfig(hidden_words_weight=0.1), Gpt, r"sees both sides of a word, got Gpt"),
    ],
)
def test_an_objective_refuses_a_model_that_it_does_not_train(
    objective: type, config: object, model: type, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        objective(config, encoder(model, BertConfig if model is Bert else GptConfig))


def test_parts_of_the_loss_are_those_that_the_config_names() -> None:
    rows = [np.arange(5 + start, 22 + start) for start in range(4)]
    for objective, config, model in (
        (GptObjective, GptObjectiveConfig(), encoder(Gpt, GptConfig)),
        (BertObjective, BertObjectiveConfig(), encoder(Bert, BertConfig)),
        (ContrastiveText, ContrastiveTextConfig(hidden_words_weight=0.1), encoder(Bert, BertConfig)),
    ):
        task = objective(config, model)
        batch = task.collate(rows, uniform_of(4))
        assert tuple(task(batch, task.targets(batch)).metrics) == config.parts
