"""The peers of the GPU benchmark: their own networks, losses and transforms in a plain loop, bf16 and compiled.

`python -m benchmarks._gpu_peer gpt|simclr|mae --batch N --steps N` prints one JSON line.

* gpt: transformers' GPT2LMHeadModel. A row is one document of 1,024 tokens, so that attention needs no mask.
* simclr: lightly's SimCLRTransform in worker processes, torchvision's ResNet-18 with the small stem, channels-last,
  lightly's NTXentLoss.
* mae: lightly's masked ViT-B/16 and decoder (8 x 512) on timm; images of random numbers that lie on the GPU already.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count, cycle, islice, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOGGED = 10
WORKERS = max(1, (os.cpu_count() or 1) - 2)
Steps = tuple[nn.Module, Iterator[Any], Callable[[Any], Tensor]]
"""What is trained, its batches, and their loss."""


def gpt(batch: int, device: str) -> Steps:
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50_304}
    if device == "cpu":
        shape |= {"n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": 64}
    without = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
    model = GPT2LMHeadModel(GPT2Config(**shape, **without, bos_token_id=0, eos_token_id=0)).to(device)
    compiled = torch.compile(model)
    rows = torch.randint(0, 50_257, (8, batch, shape["n_positions"]), device=device)
    return model, cycle(rows), lambda tokens: compiled(input_ids=tokens, labels=tokens, use_cache=False).loss


def simclr(batch: int, device: str) -> Steps:
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision.models.resnet import BasicBlock, ResNet

    from benchmarks._cifar10 import images_of

    pixels, transform = images_of("train")[0], SimCLRTransform(input_size=32, gaussian_blur=0.0, cj_strength=0.5)

    class Views(Dataset[Any]):
        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
            first, second = transform(Image.fromarray(pixels[place]))
            return first, second

    net = ResNet(BasicBlock, [2, 2, 2, 2])
    net.conv1, net.maxpool, net.fc = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity(), nn.Identity()  # type: ignore[assignment]
    head = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
    model = nn.Sequential(net, head).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled, loss = torch.compile(model), NTXentLoss(temperature=0.2)
    loader = DataLoader(
        Views(),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=True,
        pin_memory=device == "cuda",
    )

    def step(views: tuple[Tensor, Tensor]) -> Tensor:
        both = torch.cat(list(views)).to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        first, second = compiled(both).float().chunk(2)
        found: Tensor = loss(first, second)
        return found

    return model, (views for _ in count() for views in loader), step


def mae(batch: int, device: str) -> Steps:
    from lightly.models import utils
    from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
    from timm.models.vision_transformer import VisionTransformer

    depth = 12 if device == "cuda" else 1

    class Mae(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            vit = VisionTransformer(img_size=224, patch_size=16, embed_dim=768, depth=depth, num_heads=12, num_classes=0)
            self.backbone = MaskedVisionTransformerTIMM(vit=vit)
            self.places = self.backbone.sequence_length
            self.decoder = MAEDecoderTIMM(
                num_patches=196, patch_size=16, in_chans=3, embed_dim=768, decoder_embed_dim=512,
                decoder_depth=8 if depth > 1 else 1, decoder_num_heads=16, mlp_ratio=4.0, proj_drop_rate=0.0,
                attn_drop_rate=0.0,
            )  # fmt: skip

        def forward(self, images: Tensor) -> Tensor:
            kept, hidden = utils.random_token_mask(size=(len(images), self.places), mask_ratio=0.75, device=images.device)
            seen = self.decoder.embed(self.backbone.encode(images=images, idx_keep=kept))
            whole = utils.repeat_token(self.decoder.mask_token, (len(images), self.places))
            whole = utils.set_at_index(whole, kept, seen.type_as(self.decoder.mask_token))
            predicted = self.decoder.predict(utils.get_at_index(self.decoder.decode(whole), hidden))
            return F.mse_loss(predicted, utils.get_at_index(utils.patchify(images, 16), hidden - 1))

    model = Mae().to(device)
    return model, cycle(torch.randn(2, batch, 3, 224, 224, device=device)), torch.compile(model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("gpt", "simclr", "mae"))
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: a tiny network, to try the script")
    given = parser.parse_args()
    torch.manual_seed(0)
    model, batches, loss_of = {"gpt": gpt, "simclr": simclr, "mae": mae}[given.kind](given.batch, given.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    marks, losses = [], []
    for number, batch in enumerate(islice(batches, given.steps)):
        with torch.autocast(given.device, torch.bfloat16, enabled=given.device == "cuda"):
            loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if number % LOGGED == LOGGED - 1:
            losses.append(loss.item())
            marks.append(time.perf_counter())
    seconds = [(after - before) / LOGGED for before, after in pairwise(marks[1:])]
    units = given.batch * (1024 if given.kind == "gpt" else 1)
    print(
        json.dumps({"impl": "peer", "kind": given.kind, "per_s_p50": units / statistics.median(seconds), "loss": losses[-1]})
    )


if __name__ == "__main__":
    main()
