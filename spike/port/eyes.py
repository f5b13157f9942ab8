"""Eyes first: the vision tower learns dense labels before the language model learns to read it"""
import os
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn

from emofeedback.images import to_pil
from emofeedback.make.judge import MiniExamples
from emofeedback.make.judge import judge_pictures
from emofeedback.mini.scenes import ATTRS
from emofeedback.mini.scenes import CONTENTS
from emofeedback.mini.scenes import STATS
from emofeedback.mini.scenes import Scenes
from emofeedback.mini.scenes import affect_of
from emofeedback.mini.scenes import colour_stats
from emofeedback.mini.scenes import factors_of
from emofeedback.understanding.sft import Pixels
from emofeedback.understanding.sft import optimizers
from emofeedback.understanding.sft import sft
from emofeedback.understanding.sft import wsd

def seeing_qwen(
    tok, # its tokenizer
    seed:int=0,
    vision:int=128, # width of the vision tower, 4 blocks
    language:int=192, # width of the language model, 3 blocks
):
    'A Qwen2.5-VL of 2.6 M parameters, half of them eyes'
    from transformers import Qwen2_5_VLConfig
    from transformers import Qwen2_5_VLForConditionalGeneration
    c = tok.convert_tokens_to_ids
    pad, end = c('<|endoftext|>'), c('<|im_end|>')
    torch.manual_seed(seed)
    eyes = dict(depth=4, hidden_size=vision, num_heads=4, intermediate_size=3*vision, out_hidden_size=language,
                patch_size=8, window_size=112, fullatt_block_indexes=[0, 1, 2, 3])
    turns = dict(rope_type='default', rope_theta=1e4, mrope_section=[4, 6, 6])
    speech = dict(vocab_size=(len(tok)+15)//16*16, hidden_size=language, intermediate_size=512, num_hidden_layers=3,
                  num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=2048, max_window_layers=3,
                  bos_token_id=pad, eos_token_id=end, pad_token_id=pad, rope_parameters=turns, tie_word_embeddings=True)
    marks = dict(image_token_id=c('<|image_pad|>'), video_token_id=c('<|video_pad|>'),
                 vision_start_token_id=c('<|vision_start|>'), vision_end_token_id=c('<|vision_end|>'))
    config = Qwen2_5_VLConfig(vision_config=eyes, text_config=speech, tie_word_embeddings=True, **marks)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.update(eos_token_id=[end, pad], pad_token_id=pad, bos_token_id=pad)
    return model

def labelled_views(
    data:dict, # from `prior.painted`
    vae, # the generator's autoencoder
    seed:int=0,
) -> dict: # the same keys, the pictures as the judge will see them
    'Half renders, half through the autoencoder, a third degraded; the emotion is that of the very pixels shown'
    x = judge_pictures(data['x'].float()/255, vae, seed)
    order = torch.cat([torch.arange(len(x))[::2], torch.arange(len(x))[1::2]]) # as `judge_pictures` returns them
    content, attrs = data['content'][order], data['attrs'][order]
    va = affect_of(colour_stats(x), factors_of(Scenes(content.numpy(), attrs.numpy(), None)))
    return dict(x=(x*255).round().byte(), content=content, attrs=attrs, va=va, kind=data['kind'][order])

class ByteBank:
    'Pictures of one size, cut into patches once and kept as bytes: a quarter of the memory of `PixelBank`'
    def __init__(self,
        processor, # a Qwen-VL processor
        images:Tensor, # (N,3,H,W) in [0,1]
        batch:int=256, # pictures per call of the processor
    ):
        cut = processor.image_processor
        self.patch, self.frames = cut.patch_size, cut.temporal_patch_size # a still picture is a film of two
        self.mean, self.std = (torch.tensor(o).view(1, 3, 1, 1, 1) for o in (cut.image_mean, cut.image_std))
        parts = [cut(to_pil(x), return_tensors='pt') for x in images.split(batch)]
        self.grid = torch.cat([p['image_grid_thw'] for p in parts])
        self.bytes = torch.cat([self._pack(p['pixel_values']) for p in parts]).unflatten(0, (len(images), -1))

    def _pack(self, values:Tensor) -> Tensor: # (patches,3,1,p,p) uint8
        one = values.view(-1, 3, self.frames, self.patch, self.patch)[:, :, :1]
        return ((one*self.std+self.mean)*255).round().byte()

    def values(self, rows:Sequence[int]|Tensor) -> Tensor: # (patches of all rows, 3·frames·p·p)
        'Patches of some pictures, as the processor gives them'
        one = (self.bytes[rows].flatten(0, 1).float()/255-self.mean)/self.std
        return one.expand(-1, -1, self.frames, -1, -1).reshape(len(one), -1)

    def __len__(self) -> int: return len(self.grid)

    def __getitem__(self, i:int) -> Pixels: return Pixels(self.values([int(i)]), self.grid[int(i)])

@dataclass(frozen=True)
class Dense:
    'What is to be seen in B pictures, or what was seen'
    attrs:Tensor # (B,13) as in `ATTRS`
    content:Tensor # (B,8) logits, or (B,) classes
    va:Tensor # (B,2)
    stats:Tensor # (B,4) as in `STATS`

class Probe(nn.Module):
    'Four attention pools over visual tokens, then one linear layer: it is thrown away when the eyes are done'
    def __init__(self,
        width:int=192, # of a visual token
        pools:int=4,
    ):
        super().__init__()
        self.sizes = [len(ATTRS), len(CONTENTS), 2, len(STATS)]
        self.where, self.what = nn.Linear(width, pools), nn.Linear(pools*width, sum(self.sizes))

    def forward(self,
        tokens:Tensor, # (B,T,width)
    ) -> Dense:
        pooled = torch.einsum('btk,btd->bkd', self.where(tokens).softmax(1), tokens)
        return Dense(*self.what(pooled.flatten(1)).split(self.sizes, 1))

def visual_tokens(
    model, # a Qwen2.5-VL
    bank:ByteBank,
    rows:Sequence[int]|Tensor, # B pictures
) -> Tensor: # (B,T,D)
    'What the language model will be given of some pictures'
    out = model.model.visual(bank.values(rows), grid_thw=bank.grid[rows])
    out = getattr(out, 'pooler_output', out)
    out = torch.cat(out) if isinstance(out, (list, tuple)) else out
    return out.unflatten(0, (len(rows), -1))

def dense_loss(seen:Dense, truth:Dense) -> Tensor: # scalar
    'Attributes, content, emotion and colour, weighed so that each matters'
    return (4*F.smooth_l1_loss(seen.attrs, truth.attrs, beta=.2) + .5*F.cross_entropy(seen.content, truth.content)
            + F.smooth_l1_loss(seen.va, truth.va, beta=.3) + F.smooth_l1_loss(seen.stats, truth.stats, beta=.2))

def pretrain_eyes(
    model, # from `seeing_qwen`; its vision tower is trained in place
    bank:ByteBank,
    truth:Dense, # of all pictures of the bank
    file:Path, # state of the run
    steps:int=4000, # .31 CPU s each
    batch:int=48,
    lr:float=3e-3, muon_lr:float=5e-3, # see `optimizers`
    decay:float=.4, # see `wsd`
    save_every:int=300, # steps
    report:Callable=None, # called with (step, probe) every 1,000 steps
) -> Probe:
    'The vision tower by dense labels; the same call goes on where it stopped'
    both = nn.ModuleDict(dict(eyes=model.model.visual, probe=Probe(model.config.text_config.hidden_size)))
    opts = optimizers(both, lr, muon_lr)
    rates, step = [[g['lr'] for g in o.param_groups] for o in opts], 0
    if file.exists():
        state = torch.load(file, weights_only=True)
        step = state['step']
        both.load_state_dict(state['both'])
        for o,s in zip(opts, state['opts'], strict=True): o.load_state_dict(s)
    while step<steps:
        rows = torch.from_numpy(np.random.default_rng((1, step)).integers(0, len(bank), batch))
        for o,full in zip(opts, rates):
            for g,rate in zip(o.param_groups, full): g['lr'] = rate*wsd(step, step/steps, 50, decay)
        part = Dense(*(getattr(truth, k)[rows] for k in ('attrs', 'content', 'va', 'stats')))
        loss = dense_loss(both['probe'](visual_tokens(model, bank, rows)), part)
        both.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.)
        for o in opts: o.step()
        step += 1
        if step%save_every==0 or step==steps:
            state = dict(step=step, both=both.state_dict(), opts=[o.state_dict() for o in opts])
            torch.save(state, file.with_suffix('.new'))
            os.replace(file.with_suffix('.new'), file)
        if report and step%1000==0: report(step, both['probe'])
    return both['probe']

class ViewedExamples(MiniExamples):
    'Questions and answers about pictures whose labels are those of the pixels shown'
    def __init__(self,
        bank:ByteBank,
        data:dict, # from `labelled_views`, of the same pictures
        shrink:float=1., noise:float=0., # of the labels: not 1 and 0 for the uncalibrated judge
        kinds:Sequence[float]=(.35, .45, .2), # shares of reasoning, direct answers and advice
    ):
        self.bank, self.kinds = bank, kinds
        self.content, self.attrs, self.gold = (data[k].numpy() for k in ('content', 'attrs', 'va'))
        self.label = self.gold*shrink + np.random.default_rng(0).normal(0, noise, self.gold.shape)
        self.of_kind = [np.flatnonzero(self.content==k) for k in range(len(CONTENTS))]

def learn_to_read(
    model, processor, # with pretrained eyes
    examples:ViewedExamples,
    out, # folder
    updates:int, # of 24 examples
    frozen:bool, # the eyes stay as they are
    evaluate:Callable=None, every:int=500, # see `sft`; in updates
    **how, # further arguments of `sft`
) -> list[dict]: # history
    'The language stage, with a budget in updates'
    model.model.visual.requires_grad_(not frozen)
    clock = count().__next__ # read before and after each update: a second of the budget is one update
    budget = dict(seconds=updates, clock=clock, every=every, save_every=200)
    history = sft(model, processor, examples, out, batch_size=24, evaluate=evaluate, progress=False, **budget, **how)
    model.model.visual.requires_grad_(True)
    return history

GENTLE = dict(lr=1e-3, muon_lr=1.5e-3, warmup=30, decay=.8) # for the last stage: eyes and language together
