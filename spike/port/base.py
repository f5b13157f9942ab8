"""The base generator of the second edition: patches of 2, Muon, a schedule whose end can be moved"""
import os
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emofeedback.make.models import embed
from emofeedback.make.models import tokens
from emofeedback.understanding.sft import optimizers

def small_transformer(
    width:int=96, # of the stream; heads of 32
    depth:int=3, # blocks
    patch:int=2, # latent pixels per token and side: 64 picture tokens
    seed:int=0,
):
    'An SD3 transformer of 1.0 M parameters with fine patches'
    from diffusers import SD3Transformer2DModel
    torch.manual_seed(seed)
    return SD3Transformer2DModel(sample_size=16, patch_size=patch, in_channels=4, out_channels=4, num_layers=depth,
        attention_head_dim=32, num_attention_heads=width//32, joint_attention_dim=128, caption_projection_dim=width,
        pooled_projection_dim=128, pos_embed_max_size=32//patch, qk_norm='rms_norm')

class CaptionedLatents:
    'Latents of pictures and of their mirror images, each with several captions'
    def __init__(self,
        pipe, # whose text towers read
        latents:Tensor, # (2,N,4,16,16) as painted, and mirrored
        ids:Tensor, # (C,N,T) tokens of C captions per picture
    ): self.pipe, self.latents, self.ids, self.empty = pipe, latents, ids, tokens(pipe.tokenizer, [''])

    def __len__(self) -> int: return self.latents.shape[1]

    def draw(self,
        rng:np.random.Generator,
        n:int, # how many
        dropout:float=.1, # chance of an empty caption, for guidance
        t5:float=.15, # share of batches with the zeros that the stock pipeline puts in a missing T5's place
    ) -> tuple[Tensor, Tensor, Tensor]: # (n,4,16,16) latents, (n,T,128) token embeddings, (n,128) pooled
        'A batch'
        i = torch.from_numpy(rng.integers(0, len(self), n))
        x = self.latents[torch.randint(0, 2, (n,)), i].float()
        said = self.ids[torch.randint(0, len(self.ids), (n,)), i].long()
        embeds, pooled = embed(self.pipe, torch.where(torch.rand(n, 1)<dropout, self.empty, said))
        return x, torch.cat([embeds, torch.zeros_like(embeds)], 1) if rng.random()<t5 else embeds, pooled

def flow_matching_loss(
    net, # SD3Transformer2DModel
    x:Tensor, # (B,4,16,16) clean latents
    embeds:Tensor, pooled:Tensor, # what the text towers said
) -> Tensor: # (B,) squared error of the velocity
    'How far the predicted direction is from the true one, at logit-normal noise levels'
    noise, sigma = torch.randn_like(x), torch.randn(len(x)).sigmoid()
    s = sigma.view(-1, 1, 1, 1)
    told = dict(encoder_hidden_states=embeds, pooled_projections=pooled)
    v = net((1-s)*x+s*noise, timestep=sigma*1000, return_dict=False, **told)[0]
    return (v-(noise-x)).square().flatten(1).mean(1)

def constant_then_down(
    step:int,
    steps:int, # of the whole run
    decay:float=.3, # last share of the run, in which the rate falls to a hundredth
    warmup:int=100, # steps
) -> float: # factor of the learning rate
    'A schedule whose end can be moved as long as the decay has not begun'
    return min(1., (step+1)/warmup)*max(.01, min(1., (steps-step)/(decay*steps)))

@dataclass
class BaseRun:
    'A training run of the base, kept in one file so that it can be stopped at any time'
    net:object # SD3Transformer2DModel
    lr:float=3e-3 # AdamW's
    muon_lr:float=4e-3 # Muon's
    ema:float=.999 # decay of the averaged weights
    step:int=0
    losses:list[float]=field(default_factory=list)

    def __post_init__(self):
        self.params = list(self.net.parameters())
        self.opts = optimizers(self.net, self.lr, self.muon_lr)
        self.rates = [[g['lr'] for g in o.param_groups] for o in self.opts]
        self.average = [p.detach().clone() for p in self.params]

    def update(self, loss:Tensor, factor:float) -> None: # factor of the learning rates
        'One step of optimiser and average'
        for opt,full in zip(self.opts, self.rates):
            for g,rate in zip(opt.param_groups, full): g['lr'] = rate*factor
        self.net.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.)
        for opt in self.opts: opt.step()
        self.step += 1
        self.losses.append(loss.item())
        torch._foreach_lerp_(self.average, [p.detach() for p in self.params], 1-min(self.ema, self.step/(self.step+10)))

    def save(self, file:Path) -> None:
        'Write everything; a crash while writing leaves the older file whole'
        params = [p.data for p in self.params]
        state = dict(step=self.step, losses=self.losses[-1000:], average=self.average, params=params,
                     opts=[o.state_dict() for o in self.opts])
        torch.save(state, file.with_suffix('.new'))
        os.replace(file.with_suffix('.new'), file)

    @torch.no_grad()
    def resume(self, file:Path) -> None:
        'Go on from a file, if there is one'
        if not file.exists(): return
        state = torch.load(file, weights_only=True)
        self.step, self.losses, self.average = state['step'], state['losses'], state['average']
        for p,q in zip(self.params, state['params'], strict=True): p.copy_(q)
        for o,s in zip(self.opts, state['opts'], strict=True): o.load_state_dict(s)

    @torch.no_grad()
    def finish(self) -> None:
        'The averaged weights take their place in the network'
        for p,q in zip(self.params, self.average, strict=True): p.copy_(q)

def train_base(
    pipe, # from `tiny_pipeline`, with trained autoencoder and towers; its transformer is trained in place
    data:CaptionedLatents,
    file:Path, # of the run
    steps:int=20_000, # .25 to .3 CPU s each
    batch:int=64,
    decay:float=.3, # see `constant_then_down`
    seed:int=0,
    save_every:int=400, # steps
    report:Callable=None, # called with the run every 1,000 steps
):
    'The base generator by flow matching; the same call goes on where it stopped'
    run = BaseRun(pipe.transformer)
    run.resume(file)
    while run.step<steps:
        torch.manual_seed(seed*1_000_003+run.step)
        batch_data = data.draw(np.random.default_rng((seed, run.step)), batch)
        run.update(flow_matching_loss(run.net, *batch_data).mean(), constant_then_down(run.step, steps, decay))
        if run.step%save_every==0 or run.step==steps: run.save(file)
        if report and run.step%1000==0: report(run)
    run.finish()
    return pipe
