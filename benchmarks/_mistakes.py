"""The ten mistakes of docs/pretrain.md, in all the forms that this code could make them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """One edit of one file, and the tests that have to fail with it."""

    number: int
    """Row of the table in docs/pretrain.md."""
    what: str
    file: str
    """Under raysl/."""
    old: str
    new: str
    tests: tuple[str, ...]
    """Under tests/."""


CONTRAST = ("objectives/test_contrast_ranks.py::test_parts_of_several_ranks_add_up_to_one_process[2]",)
NORM = ("models/test_batch_norm.py::test_two_ranks_normalise_as_one_process",)
BY_HAND = ("objectives/test_objectives.py::test_contrast_by_hand",)
MASKS = ("objectives/test_objectives.py::test_masking_hides_the_share_it_says_and_never_special_tokens",)
SAME_MASKS = ("objectives/test_objectives.py::test_masks_differ_between_epochs_and_are_the_same_after_a_resume",)
PARTS = (
    "train/test_loop.py::test_micro_batches_give_the_gradient_of_the_whole_batch",
    "train/test_image_ranks.py::test_micro_batches_of_patches_give_the_gradient_of_the_whole_batch",
)
LOGGED = ("train/test_loop.py::test_micro_batches_log_the_loss_of_the_whole_batch",)
RANK_PARTS = ("train/test_loop.py::test_micro_batches_on_two_ranks_give_the_gradient_of_the_whole_batch",)
RANK_CLIP = ("train/test_loop.py::test_two_ranks_clip_the_gradient_of_the_whole_batch",)
RESUMED = ("train/test_loop.py::test_a_resumed_run_ends_bit_equal",)
NEIGHBOUR = ("objectives/test_objectives.py::test_a_packed_document_does_not_see_its_neighbour_and_positions_restart",)
BORDER = ("objectives/test_objectives.py::test_gpt_predicts_no_document_border_and_no_padding",)
BORDERS = ("models/test_spans.py::test_packed_documents_by_their_borders_are_those_by_a_mask",)
LATER = ("objectives/test_objectives.py::test_gpt_does_not_see_what_comes_after",)
NO_GRADIENT = (
    "objectives/test_objectives.py::test_no_gradient_crosses_a_document_border_or_comes_from_what_follows",
)  # fmt: skip
ORDER = ("train/test_loop.py::test_each_epoch_has_its_own_order_and_ranks_share_no_row",)
DRAWN = ("train/test_loop.py::test_views_and_masks_differ_between_ranks_epochs_and_rows",)
RATES = ("train/test_loop.py::test_each_step_takes_the_rate_of_the_global_batch_and_says_so",)
CLIP = ("train/test_loop.py::test_the_gradient_is_clipped_once_by_its_global_norm",)
GROUPS = ("train/test_optimizers.py::test_every_trainable_parameter_is_in_one_group_and_only_matrices_decay",)
TIED = ("train/test_optimizers.py::test_tied_weights_learn_from_both_of_their_ends",)
PROBE = ("train/test_probe.py::test_the_probe_changes_nothing_and_says_what_it_was_measured_with",)
PROBE_READS = ("train/test_probe.py::test_the_probe_reads_whole_rows_as_they_are_in_evaluation_mode",)
PROBE_RANKS = ("train/test_probe.py::test_two_ranks_probe_each_row_once_as_one_process_does",)
VOTES = ("train/test_probe.py::test_as_many_neighbours_vote_as_sharply_as_the_config_says",)
MEASURED = tuple(
    f"train/{file}.py::test_a_run_that_measures_between_steps_ends_bit_equal_to_one_that_does_not"
    for file in ("test_loop", "test_image_ranks")
)
EVALUATES = ("train/test_image_ranks.py::test_measuring_leaves_the_statistics_of_batch_norm_alone",)
CLASSIFY = ("train/test_classify.py::test_measuring_is_done_in_evaluation_mode_and_changes_nothing",)
EMBEDDED = ("objectives/test_image_objectives.py::test_what_is_embedded_is_the_image_as_it_is_by_the_encoder_alone",)
TEXT_EMBEDDED = ("objectives/test_objectives.py::test_what_is_embedded_is_the_row_as_it_is",)
HIDDEN = ("objectives/test_image_objectives.py::test_mae_hides_three_quarters_of_each_image_and_others_in_each",)
PATCHES = (
    "objectives/test_image_objectives.py::test_mae_predicts_from_visible_patches_and_its_loss_is_over_hidden_ones_alone",
)  # fmt: skip
SAVED = ("models/test_vision.py::test_an_image_encoder_comes_back_with_its_statistics",)
GATHER, NEXT, BATCHES = "objectives/gather.py", "objectives/gpt.py", "train/batches.py"
LOOP, TEXT, MASKING, BATCH_NORM = "train/loop.py", "models/text.py", "objectives/masking.py", "models/batch_norm.py"
CLIPPING = "self._clip()"
SUMS = f"""
            for name, value in {{"loss": output.loss.detach(), **output.metrics}}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
        norm = {CLIPPING}"""

MISTAKES = (
    Mistake(
        1, "negatives of the own rank only", GATHER,
        "    return rows, sum(counts[: dist.get_rank()])",
        "    return padded[dist.get_rank()][: counts[dist.get_rank()]], 0", CONTRAST,
    ),
    Mistake(1, "a view is its own negative", "objectives/contrast.py", 'float("-inf")', "1.0", BY_HAND),
    Mistake(
        1, "rows that fill up a smaller rank are negatives", GATHER,
        "part[:count] for part, count in zip(padded, counts, strict=True)", "*padded", CONTRAST,
    ),
    Mistake(
        2, "a gather without gradient", GATHER, "_Send.apply(torch.cat([rows, padding]), message)",
        "_Send.apply(torch.cat([rows, padding]).detach(), message)", CONTRAST,
    ),
    Mistake(
        2, "gradients of other ranks' losses are lost", GATHER,
        "ctx.message.work = dist.all_reduce(grad, async_op=True)", "pass", CONTRAST,
    ),
    Mistake(
        2, "every rank takes the gradient of the first", GATHER, "grads[0][dist.get_rank()]", "grads[0][0]", CONTRAST,
    ),
    Mistake(
        2, "every rank is taken to hold as many rows as the first", "models/ranks.py", "range(rank, num_rows, size)",
        "range(0, num_rows, size)", CONTRAST,
    ),
    Mistake(
        2, "own rows looked for at place 0", GATHER,
        "return rows, sum(counts[: dist.get_rank()])", "return rows, 0", CONTRAST,
    ),
    Mistake(
        2, "own rows looked for at rank x rows", GATHER,
        "return rows, sum(counts[: dist.get_rank()])", "return rows, dist.get_rank() * counts[dist.get_rank()]", CONTRAST,
    ),
    Mistake(
        2, "loss not scaled against the average of ranks", LOOP, "(output.loss * self.world.size).backward()",
        "output.loss.backward()", RANK_PARTS,
    ),
    Mistake(
        3, "each rank normalises by itself", BATCH_NORM,
        "if not self.training or not ranks.several():", "if True:", NORM,
    ),
    Mistake(3, "gradient of the own rank's statistics only", BATCH_NORM, "dist.all_reduce(both)", "pass", NORM),
    Mistake(
        3, "variance without that between ranks", BATCH_NORM, "(share * (variances + (means - whole) ** 2)).sum(0)",
        "(share * variances).sum(0)", NORM,
    ),
    Mistake(
        3, "uneven ranks weigh alike", BATCH_NORM, "share = stacked[:, -1:] / stacked[:, -1].sum()",
        "share = torch.full_like(stacked[:, -1:], 1 / len(stacked))", NORM,
    ),
    Mistake(
        3, "running variance without count - 1", BATCH_NORM, "(variance * count / (count - 1))", "variance", NORM,
    ),
    Mistake(
        3, "running statistics of the own rank", BATCH_NORM, "self.running_mean.lerp_(mean.to(",
        "self.running_mean.lerp_(input.detach().mean((0, 2, 3)).to(", NORM,
    ),
    Mistake(3, "probe in training mode", "train/probe.py", "    objective.eval()\n", "", PROBE),
    Mistake(3, "the probe leaves evaluation mode on", "train/probe.py", "objective.train(was_training)", "pass", PROBE),
    Mistake(3, "held-out loss in training mode", "train/evaluate.py", "self.objective.eval()", "pass", EVALUATES),
    Mistake(
        3, "training goes on in evaluation mode", "train/evaluate.py", "self.objective.train()", "pass", MEASURED,
    ),
    Mistake(3, "features of few-label probes in training mode", "train/classify.py", "    encoder.eval()\n", "", CLASSIFY),
    Mistake(3, "predictions in training mode", "train/classify.py", "    classifier.eval()\n", "", CLASSIFY),
    Mistake(4, "20 % of tokens chosen, not 15 %", MASKING, "(choose < share)", "(choose < share + 0.05)", MASKS),
    Mistake(4, "70 % of the chosen hidden, not 80 %", MASKING, "chosen & (act < 0.8)", "chosen & (act < 0.7)", MASKS),
    Mistake(4, "none of the chosen swapped", MASKING, "(act >= 0.8) & (act < 0.9)", "(act >= 0.9) & (act < 0.9)", MASKS),
    Mistake(4, "none of the chosen stays", MASKING, "(act >= 0.8) & (act < 0.9)", "(act >= 0.8)", MASKS),
    Mistake(4, "special tokens chosen", MASKING, "chosen = (tokens >= NUM_SPECIAL) & ", "chosen = ", MASKS),
    Mistake(
        4, "special tokens put in at random", MASKING, "NUM_SPECIAL + (swap * (vocab_size - NUM_SPECIAL))",
        "(swap * vocab_size)", MASKS,
    ),
    Mistake(
        4, "pieces of a word chosen one by one", MASKING, "if word_starts is not None:", "if False:",
        ("objectives/test_objectives.py::test_whole_words_are_hidden_together_or_not_at_all",),
    ),
    Mistake(
        4, "whole_words without effect", "objectives/bert.py", "random, self.word_starts)", "random)",
        ("objectives/test_objectives.py::test_bert_hides_whole_words_where_the_config_says",),
    ),
    Mistake(4, "the same mask at each step", BATCHES, "default_rng((seed, 1, step))", "default_rng((seed, 1))", SAME_MASKS),
    Mistake(4, "another mask after a resume", BATCHES, "default_rng((seed, 1, step))", "default_rng()", SAME_MASKS),
    Mistake(
        5, "mean of the means of micro-batches", LOOP, "self._backward(batch, totals, sync",
        "self._backward(batch, self.objective.targets(batch) * len(micro_batches), sync", PARTS[:1],
    ),
    Mistake(
        5, "sum of the means of micro-batches", LOOP, "self._backward(batch, totals, sync",
        "self._backward(batch, self.objective.targets(batch), sync", PARTS[:1],
    ),
    Mistake(
        5, "images: mean of the means", "objectives/mae.py", ".sum() / totals[0]", ".mean() / 4", PARTS[1:],
    ),
    Mistake(5, "totals of the own rank only", LOOP, "totals = self.world.total(", "totals = (", RANK_PARTS),
    Mistake(5, "ranks never average", LOOP, "sync=place == len(micro_batches) - 1", "sync=False", RANK_PARTS),
    Mistake(
        5, "loss of the last micro-batch logged", LOOP, "sums.get(name, torch.zeros_like(value)) + value", "value", LOGGED,
    ),
    Mistake(5, "gradients of the last step stay", LOOP, "        self.optimizer.zero_grad(set_to_none=True)\n", "", RESUMED),
    Mistake(
        6, "attention across documents", TEXT, "visible = documents[:, None, :, None] == documents[:, None, None, :]",
        "visible = torch.ones_like(documents[:, None, :, None] == documents[:, None, None, :])", NEIGHBOUR,
    ),
    Mistake(6, "positions go on", TEXT, "return steps - torch.where(first, steps, 0).cummax(dim=1).values",
        "return steps.expand_as(tokens)", NEIGHBOUR),
    Mistake(
        6, "hidden words see other documents", "objectives/bert.py",
        'self.encoder.encode(batch["tokens"], batch["documents"], hidden, batch.get("borders"))',
        'self.encoder.encode(batch["tokens"], at=hidden)',
        ("objectives/test_objectives.py::test_hidden_words_are_predicted_from_their_own_document_alone",),
    ),
    Mistake(
        6, "packed rows taken for one document", NEXT, "if documents[:, -2].any():", "if False:",
        ("objectives/test_objectives.py::test_packed_loss_is_the_mean_over_documents_run_alone",),
    ),
    Mistake(
        6, "a separator belongs to the next document", "objectives/base.py", "    ends[:, 1:] = ends[:, :-1].copy()\n", "",
        ("objectives/test_objectives.py::test_document_numbers_change_after_each_separator",),
    ),
    Mistake(6, "the next token is seen", TEXT, "steps[:, None] >= steps", "steps[:, None] + 1 >= steps", LATER),
    Mistake(
        6, "rows of one document see what follows", TEXT, "None, self.causal)", "None, False)", NO_GRADIENT,
    ),
    Mistake(6, "bf16: the next token is seen", "models/transformer.py", ".tril(), q)", ".tril(1), q)", NO_GRADIENT),
    Mistake(6, "bf16: no mask", "models/transformer.py", "scores = scores + mask", "pass", NO_GRADIENT),
    Mistake(
        6, "by borders: what follows is seen", "models/spans.py", "(-1, 0) if causal", "(-1, -1) if causal", BORDERS,
    ),
    Mistake(
        6, "by borders: rows taken for one document", "objectives/base.py",
        "first = np.ones(documents.shape, bool)\n    first[:, 1:] = documents[:, 1:] != documents[:, :-1]",
        "first = np.ones(documents.shape, bool)\n    first[:, 1:] = False", BORDERS,
    ),
    Mistake(
        6, "by borders: none between rows", "objectives/base.py", "first = np.ones(documents.shape, bool)",
        "first = np.zeros(documents.shape, bool)",
        ("models/test_spans.py::test_borders_are_where_documents_start_and_the_number_of_places",),
    ),
    Mistake(6, "labels not shifted", NEXT, "labels = tokens[:, 1:].copy()", "labels = tokens[:, :-1].copy()", BORDER),
    Mistake(6, "PAD counts in the loss", NEXT, " | (labels == PAD)", "", BORDER),
    Mistake(6, "words predicted across a border", NEXT, "(documents[:, 1:] != documents[:, :-1]) | ", "", BORDER),
    Mistake(
        6, "PAD counts in the embedding", TEXT, " * (inputs != PAD)[..., None]", "",
        ("objectives/test_objectives.py::test_embedding_ignores_padding_and_reads_long_documents_in_windows",),
    ),
    Mistake(7, "each epoch in the same order", "data/order.py", "(self.seed, window.epoch))", "(self.seed, 0))", ORDER),
    Mistake(
        7, "each epoch in the same order of shards", "data/order.py", "(self.seed, epoch, 0, SHARDS)", "(self.seed, SHARDS)",
        ("data/test_order.py::test_every_epoch_has_another_order_of_shards_and_of_rows",),
    ),
    Mistake(
        7, "a window mixed the same way each epoch", "data/order.py",
        "(self.seed, window.epoch, 0, WINDOWS + window.number)", "(self.seed, WINDOWS)",
        ("data/test_order.py::test_every_epoch_mixes_the_rows_of_a_window_anew",),
    ),
    Mistake(7, "ranks read the same rows", BATCHES, "np.arange(self.rank, size", "np.arange(0, size", ORDER),
    Mistake(7, "each rank has an order of its own", BATCHES, "RowFeed(rows, seed)", "RowFeed(rows, seed + rank)", ORDER),
    Mistake(
        7, "rows at the end of an epoch dropped", BATCHES, "first = step * size",
        "epoch = self.feed.order.num_rows\n"
        "        first = step // (epoch // size) * epoch + step % (epoch // size) * size",
        ORDER,
    ),
    Mistake(
        7, "a resumed run reads from the start again", LOOP, "rows = batches.step(self.step,",
        'rows = batches.step(self.step - self.__dict__.setdefault("first", self.step),', RESUMED,
    ),
    Mistake(
        7, "a resumed run skips the step it was in", BATCHES, "numbers = self.feed.order.rows(first, size)",
        'first += self.__dict__.setdefault("skipped", size if step else 0)\n'
        "        numbers = self.feed.order.rows(first, size)",
        RESUMED,
    ),
    Mistake(
        7, "a resumed optimizer starts afresh", LOOP,
        '        self.optimizer.load_state_dict(state["optimizer"])\n', "", RESUMED,
    ),
    Mistake(7, "a resumed average starts afresh", LOOP, 'self.average.load(state["average"])', "pass", RESUMED),
    Mistake(
        7, "dropout not drawn from the step", LOOP,
        "self.world.seed(self.seed, self.step)", "pass", RESUMED,
    ),
    Mistake(
        7, "ranks share their dropout", "train/world.py", "(seed, step, self.rank)", "(seed, step)",
        ("train/test_loop.py::test_two_ranks_draw_their_dropout_apart_at_every_step",),
    ),
    Mistake(
        7, "ranks share masks and views", "objectives/base.py", "random((self.num_rows, count))[self.places]",
        "random((len(self.places), count))", DRAWN,
    ),
    Mistake(
        7, "rows of a batch share their views", "objectives/simclr.py", "uniform=uniform(2 * NUM_UNIFORM))",
        "uniform=uniform(2 * NUM_UNIFORM)[:1].repeat(len(rows), 0))",
        ("objectives/test_image_objectives.py::test_the_same_image_twice_in_a_batch_has_views_of_its_own",),
    ),
    Mistake(
        7, "both views of a row are one", "objectives/simclr.py", "torch.cat(numbers.chunk(2, dim=1))",
        "numbers.chunk(2, dim=1)[0].repeat(2, 1)",
        ("objectives/test_image_objectives.py::test_two_views_of_a_row_are_drawn_apart",),
    ),
    Mistake(
        8, "minimum not reached at the last step", "train/optimizers.py", "max(1, max_steps - 1 - warmup)",
        "max(1, max_steps - warmup)",
        ("train/test_optimizers.py::test_rate_rises_then_falls_to_its_minimum_exactly_at_the_last_step",),
    ),
    Mistake(
        8, "rate not scaled with the batch", "train/optimizers.py",
        "share = global_batch_size / config.reference_batch_size",
        "share = 1.0", ("train/test_optimizers.py::test_rate_grows_with_the_global_batch_as_the_config_says",),
    ),
    Mistake(
        8, "rate scaled with the micro-batch", LOOP, "optimizers.peak_rate(config.optimizer, config.global_batch_size)",
        "optimizers.peak_rate(config.optimizer, config.global_batch_size // config.accumulation_steps)", RATES,
    ),
    Mistake(
        8, "rate scaled with the rank's batch", LOOP, "optimizers.peak_rate(config.optimizer, config.global_batch_size)",
        "optimizers.peak_rate(config.optimizer, config.global_batch_size // self.world.size)",
        ("train/test_loop.py::test_micro_batches_on_two_ranks_log_the_loss_and_take_the_rates_of_one_process",),
    ),
    Mistake(
        8, "schedule counted in micro-batches", LOOP, "optimizers.rate_share(self.step, self.config.max_steps",
        "optimizers.rate_share(self.step * self.config.accumulation_steps, self.config.max_steps", RATES,
    ),
    Mistake(
        8, "schedule starts afresh after a resume", LOOP, "optimizers.rate_share(self.step,",
        'optimizers.rate_share(self.step - self.__dict__.setdefault("first", self.step),', RESUMED,
    ),
    Mistake(8, "schedule logged and not used", LOOP, "        optimizers.set_rate(self.optimizer, rate)\n", "", RATES),
    Mistake(
        8, "each tensor clipped by its own norm", LOOP, CLIPPING,
        "sum(nn.utils.clip_grad_norm_([p], self.config.optimizer.max_gradient_norm) for p in self.objective.parameters())",
        CLIP,
    ),
    Mistake(8, "a large gradient passes on a CPU", LOOP, "not norm <= limit", "norm != norm", CLIP),
    Mistake(
        8, "each micro-batch clipped", LOOP, "sync=place == len(micro_batches) - 1)",
        f"sync=place == len(micro_batches) - 1)\n            {CLIPPING}", CLIP,
    ),
    Mistake(
        8, "clipped before the average over ranks", LOOP,
        f"sync=place == len(micro_batches) - 1){SUMS}",
        f"sync=False){SUMS}\n        for p in self.objective.parameters():\n"
        "            if p.grad is not None and self.world.size > 1:\n"
        "                torch.distributed.all_reduce(p.grad.div_(self.world.size))",
        RANK_CLIP,
    ),
    Mistake(
        9, "everything decays", "train/optimizers.py", "return parameter.ndim >= 2 and", "return True or", GROUPS,
    ),
    Mistake(9, "positions decay", "train/optimizers.py", '{"positions", "position", "pos_embed", ', "{", GROUPS),
    Mistake(9, "learned tokens decay", "train/optimizers.py", ', "cls_token", "class_token", "mask_token"}', "}", GROUPS),
    Mistake(9, "scalars of a table decay", "train/optimizers.py", " and parameter[0].numel() > 1", "", GROUPS),
    Mistake(9, "nothing decays", "train/optimizers.py", "return parameter.ndim >= 2 and", "return False and", GROUPS),
    Mistake(
        9, "tied weights counted twice", "train/optimizers.py", "model.named_parameters():",
        "model.named_parameters(remove_duplicate=False):", GROUPS,
    ),
    Mistake(
        9, "hidden matrices in two optimizers", "train/optimizers.py",
        "if parameter.requires_grad and id(parameter) not in taken:", "if parameter.requires_grad:", GROUPS,
    ),
    Mistake(
        9, "GPT's output not tied to its embeddings", TEXT, "F.linear(vectors, self.tokens.weight)",
        "F.linear(vectors, self.tokens.weight.detach())", TIED,
    ),
    Mistake(
        9, "BERT's output not tied to its embeddings", TEXT, "self.tokens.weight, self.head_bias)",
        "self.tokens.weight.detach(), self.head_bias)", TIED,
    ),
    Mistake(
        9, "LARS adapts norms and biases", "train/optimizers.py", '{**others, "adapt": False}', '{**others, "adapt": True}',
        ("train/test_optimizers.py::test_lars_adapts_matrices_and_neither_norms_nor_biases",),
    ),
    Mistake(
        10, "probe reads masked rows", "train/probe.py", "objective.inputs([labelled.rows[p] for p in part])",
        "next(iter(objective.collate([labelled.rows[p] for p in part], "
        "lambda count, part=part: np.random.default_rng(0).random((len(part), count))).values()))",
        PROBE_READS,
    ),
    Mistake(
        10, "images to embed are mirrored", "objectives/images.py", "to_images(self.stack(rows), self.pixel_format)",
        "to_images(self.stack(rows), self.pixel_format)[..., ::-1].copy()", EMBEDDED,
    ),
    Mistake(
        10, "rows to embed are cut to the context", "objectives/base.py", "torch.from_numpy(pad(rows))",
        "torch.from_numpy(pad(rows, self.row_length))", TEXT_EMBEDDED,
    ),
    Mistake(
        10, "embedding taken behind the projection head", "objectives/simclr.py", "    def _views(",
        "    def embed(self, inputs: Tensor) -> Tensor:\n"
        "        return F.normalize(self.projector(self.encoder.features(inputs)), dim=-1)\n\n    def _views(",
        EMBEDDED,
    ),
    Mistake(
        10, "a row is its own neighbour", "train/probe.py", '        similarity.diagonal(start).fill_(float("-inf"))\n', "",
        ("train/test_probe.py::test_neighbours_vote_by_hand",),
    ),
    Mistake(10, "another number of neighbours", "train/probe.py", "topk(min(k, ", "topk(min(20, ", VOTES),
    Mistake(10, "votes without temperature", "train/probe.py", "(nearest.values / temperature)", "nearest.values", VOTES),
    Mistake(10, "the result names another k", "train/probe.py", '"knn_k": config.k', '"knn_k": 20', PROBE),
    Mistake(
        10, "the result names another temperature", "train/probe.py", '"knn_temperature": config.temperature',
        '"knn_temperature": 0.07', PROBE,
    ),
    Mistake(
        10, "rows that fill up a rank count twice", "train/probe.py",
        "share = range(world.rank, len(labelled.rows), world.size)",
        "share = [(world.rank + n * world.size) % len(labelled.rows) for n in range(-(-len(labelled.rows) // world.size))]",
        PROBE_RANKS,
    ),
    Mistake(10, "labels of other rows", "train/probe.py", ".to(world.device)[places]", ".to(world.device)", PROBE_READS),
    Mistake(
        10, "documents of the test set stay in the training set", "data/decontaminate.py",
        "keep[rows[self._evaluation[places] == hashes]] = False", "pass",
        ("data/test_decontaminate.py::test_thirteen_words_in_a_row_are_too_many",),
    ),
    Mistake(
        10, "MAE: loss over all patches", "objectives/mae.py",
        'batch["visible"], batch["hidden"])\n        loss = self.patch_errors(predicted, take(patches, batch["hidden"]))',
        'batch["visible"], torch.cat([batch["visible"], batch["hidden"]], 1))\n'
        '        loss = self.patch_errors(predicted, take(patches, torch.cat([batch["visible"], batch["hidden"]], 1)))',
        PATCHES,
    ),
    Mistake(
        10, "MAE: the encoder sees hidden patches", "objectives/mae.py", 'self.encoder.encode(patches, batch["visible"])',
        'self.encoder.encode(patches)[:, : 1 + batch["visible"].shape[1]]', PATCHES,
    ),
    Mistake(
        10, "MAE: one mask for all images", "objectives/mae.py", "order = random[:, 1:].argsort(1)",
        "order = random[:1, 1:].argsort(1).repeat(len(rows), 0)", HIDDEN,
    ),
    Mistake(10, "MAE: half of the patches hidden", "objectives/mae.py", "* config.mask_ratio", "* 0.5", HIDDEN),
    Mistake(
        10, "MAE: target normalised over the image", "objectives/mae.py", "torch.var_mean(target, -1, keepdim=True)",
        "torch.var_mean(target, (-2, -1), keepdim=True)",
        ("objectives/test_image_objectives.py::test_a_target_is_normalised_for_each_patch_by_itself",),
    ),
    Mistake(
        10, "mean of the images not saved with the model", "models/vision.py", 'mean=tuple(said["mean"])',
        'mean=(0.0,) * len(said["mean"])', SAVED,
    ),
    Mistake(
        10, "deviation of the images not saved with the model", "models/vision.py", 'std=tuple(said["std"])',
        'std=(1.0,) * len(said["std"])', SAVED,
    ),
)  # fmt: skip
