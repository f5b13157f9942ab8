"""Flow-GRPO that learns: credit goes where the spread of the rewards comes from"""
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emofeedback.core import Prompt
from emofeedback.core import Trajectory
from emofeedback.generation.advantage import advantage
from emofeedback.generation.flow import fresh_noise
from emofeedback.generation.flow import ode_step
from emofeedback.generation.flow import sde_transition
from emofeedback.generation.objectives import grpo_loss
from emofeedback.generation.objectives import velocity_kl
from emofeedback.generation.rewards import score
from emofeedback.generation.rollout import replay
from emofeedback.generation.rollout import replay_log_prob
from emofeedback.generation.run import Run
from emofeedback.generation.run import RunConfig
from emofeedback.generation.train import velocity_gain

def useful_sigmas(
    sigmas:Tensor, # (n+1,) noise levels of a walk, 1 to 0
    least:float=.01, # a step from below this is not worth a call of the network
) -> Tensor: # (n,) or as it came
    'The walk without a last step that hardly changes the picture: it ends where that step began'
    return torch.cat([sigmas[:-2], sigmas[-1:]]) if len(sigmas)>2 and sigmas[-2]<least else sigmas

def walk(
    gen, # Generator
    x:Tensor, # (B,C,H,W) latents at sigmas[first]
    cond, # encoded prompts
    sigmas:Tensor, # (n+1,) noise levels of the whole walk
    first:int, last:int, # steps to take, from `first` to before `last`
    guidance_scale:float=1., # 1 = none
) -> list[Tensor]: # the latents after each step
    'Some steps by the ODE'
    xs = [x]
    for i in range(first, last):
        xs.append(ode_step(xs[-1], gen.velocity(xs[-1], sigmas[i], cond, guidance_scale), sigmas[i], sigmas[i+1]))
    return xs[1:]

@torch.no_grad()
def branching_rollout(
    gen, # Generator
    prompts:list[Prompt], # one per group
    group_size:int, # pictures for each
    steps:int, # of the schedule
    branch:int, # the stochastic step: what is before it is walked once per group
    noise_level:float=1.4, # a
    kind:str='exact', # of the stochastic step, see flow
    guidance_scale:float=1., # 1 = none
    generator:torch.Generator=None, # seed of all chance
) -> Trajectory: # of len(prompts)*group_size pictures
    'Groups that part at one step: same prompt, same start, same way up to there'
    sigmas = useful_sigmas(gen.sigmas(steps))
    last = len(sigmas)-3
    if not 0<=branch<=last: raise ValueError(f'branch={branch} of {last+2} steps: choose from 0 to {last}')
    one = gen.encode([p.text for p in prompts])
    group = torch.arange(len(prompts)).repeat_interleave(group_size)
    stem = [gen.noise(len(prompts), generator)]
    stem += walk(gen, stem[0], one, sigmas, 0, branch, guidance_scale)
    s, s_next = sigmas[branch], sigmas[branch+1]
    v = gen.velocity(stem[-1], s, one, guidance_scale)
    shared = sde_transition(stem[-1], v, s, s_next, sigmas[1], noise_level, kind)
    many = [x.repeat_interleave(group_size, 0) for x in stem]
    split = type(shared)(shared.mean.repeat_interleave(group_size, 0), shared.std)
    cond = one.repeat(group_size)
    xs = [*many, split.sample(generator)]
    logp = split.log_prob(xs[-1])
    xs += walk(gen, xs[-1], cond, sigmas, branch+1, len(sigmas)-1, guidance_scale)
    return Trajectory(x=torch.stack(xs, 1), sigmas=sigmas, steps=torch.tensor([branch]), logp=logp[:, None], cond=cond,
                      images=gen.decode(xs[-1]), group=group.to(xs[0].device), prompts=[prompts[i] for i in group],
                      settings=dict(noise_level=noise_level, kind=kind, guidance_scale=guidance_scale))

def step_weight(
    traj:Trajectory,
    i:int, # which stochastic step, 0 is the first
) -> float:
    'The noise of a step over what velocity does to its mean: it makes all gradients alike in size (TempFlow-GRPO)'
    k, s = int(traj.steps[i]), traj.sigmas
    std = fresh_noise(s[k], s[k+1], s[1], traj.settings['noise_level'], traj.settings['kind'])
    return float(std)/abs(velocity_gain(traj, i))

@dataclass(frozen=True)
class FlowGRPOConfig(RunConfig):
    'Settings of Flow-GRPO on the mini world (ours, measured)'
    lr:float=4e-3 # AdamW
    prompts:int=8 # groups per update
    group_size:int=12 # pictures per group
    steps:int=8 # of the schedule
    window_end:int=4 # the stochastic step is one of the first so many
    noise_level:float=1.4 # of that step
    kind:str='exact' # of that step
    guidance_scale:float=1. # in rollouts; 1 = none
    beta:float=.004 # weight of the squared distance to the velocities of the base
    weigh_steps:bool=True # see `step_weight`
    parts:int=1 # optimiser steps per rollout, each on its own groups (flow_grpo, with a slow average)
    clip_range:float=1e-4 # (Flow-GRPO)
    merge:bool=True # adapters added into the weights while they work

def part_loss(
    gen, # Generator
    traj:Trajectory, # a rollout with one stochastic step
    adv:Tensor, # (B,) advantages
    rows:Tensor, # (N,) long, which pictures
    cfg:FlowGRPOConfig,
) -> tuple[Tensor, dict]: # scalar, numbers to log
    'Clipped policy gradient and distance to the base, on some rows of a rollout'
    with gen.merged() if cfg.merge else nullcontext(): now, logp = replay_log_prob(gen, traj, 0, rows)
    loss, stats = grpo_loss(logp, traj.logp[rows, 0], adv[rows], cfg.clip_range)
    if cfg.weigh_steps: loss = loss*step_weight(traj, 0)
    if not cfg.beta: return loss, stats
    with torch.no_grad(), gen.adapters(False): base = replay(gen, traj, 0, rows)
    kl = velocity_kl(now.mean, base.mean)/velocity_gain(traj, 0)**2
    return loss+cfg.beta*kl, stats|dict(kl=kl.item())

def flow_grpo_update(
    run:Run, # its `cfg` is a `FlowGRPOConfig`
    reward_fns:dict[str, Callable], weights:dict[str, float], # see `score`
    sample_prompts:Callable, # (n, rng) -> n prompts
) -> dict: # a log row
    'Rollout, weigh, compare, improve'
    gen, cfg, t = run.gen, run.cfg, [time.process_time()]
    how = {k: getattr(cfg, k) for k in ('group_size', 'steps', 'noise_level', 'kind', 'guidance_scale')}
    branch, prompts = int(run.rng.integers(cfg.window_end)), sample_prompts(cfg.prompts, run.rng)
    with gen.merged() if cfg.merge else nullcontext():
        traj = branching_rollout(gen, prompts, branch=branch, generator=run.generator, **how)
    t.append(time.process_time())
    rewards = score(reward_fns, weights, traj.images, traj.prompts)
    t.append(time.process_time())
    adv, stats = advantage(rewards, traj.group), {}
    for groups in torch.arange(cfg.prompts).chunk(cfg.parts):
        rows = torch.isin(traj.group, groups.to(traj.group)).nonzero()[:, 0]
        loss, stats = part_loss(gen, traj, adv, rows, cfg)
        loss.backward()
        stats |= dict(loss=loss.item(), grad=run.step())
    t.append(time.process_time())
    spent = dict(zip(('rollout_s', 'reward_s', 'train_s'), np.diff(t).round(4).tolist()))
    seen = {f'reward/{k}': o.nanmean().item() for k,o in rewards.parts.items()}
    return seen | dict(readable=rewards.readable(), **stats, **spent)
