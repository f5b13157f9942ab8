"""Is the base what a text-to-image model is: mild unless told otherwise, obedient to phrases, sharp"""
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emofeedback.core import Prompt
from emofeedback.make.models import round_trip
from emofeedback.mini.captions import HELD_OUT
from emofeedback.mini.captions import MODIFIERS
from emofeedback.mini.captions import content_of
from emofeedback.mini.scenes import ATTRS
from emofeedback.mini.scenes import Scenes
from emofeedback.mini.scenes import paint
from emofeedback.mini.scenes import sample_scenes
from prior import made_mild # in the library: from .prior import made_mild

def oracle_affect(oracle, images:Tensor) -> Tensor: # (B,2)
    'Valence and arousal as the referee reads them'
    return oracle.read(images)[2]

def drawn(gen, texts:Sequence[str], n:int, seed:int, steps:int=8) -> Tensor: # (texts·n,3,H,W)
    'n pictures of each text'
    return gen.sample([t for t in texts for _ in range(n)], steps, generator=torch.Generator().manual_seed(seed))

def spread_within(gen, oracle, scenes:Sequence[str]=HELD_OUT, n:int=24) -> Tensor: # (2,)
    'Standard deviation of valence and arousal over pictures of one plain prompt'
    return oracle_affect(oracle, drawn(gen, scenes, n, 0)).unflatten(0, (-1, n)).std(1).mean(0)

def obedience(gen, oracle, requests:Sequence[Prompt]) -> dict[str, float]:
    'How far pictures follow the numbers of their prompts, and how many show their content'
    x = drawn(gen, [p.text for p in requests], 1, 777)
    read, asked = oracle_affect(oracle, x).numpy(), np.array([tuple(p.target) for p in requests])
    right = np.mean([c==content_of(p.content) for c,p in zip(oracle.content(x), requests)])
    r = [float(np.corrcoef(asked[:, k], read[:, k])[0, 1]) for k in (0, 1)]
    return dict(correlation_v=r[0], correlation_a=r[1], content=float(right))

def painted_effects(oracle, vae, n:int=96, seed:int=5) -> dict[str, np.ndarray]: # phrase -> (2,)
    'What each phrase changes when the painter does it, on mild scenes through the autoencoder'
    rng = np.random.default_rng(seed)
    scenes = sample_scenes(n, rng)
    plain = made_mild(scenes.attrs, rng, keep=0.)
    def mean(attrs):
        x = paint(Scenes(scenes.content, attrs.astype(np.float32), scenes.seed))
        return oracle_affect(oracle, round_trip(vae, x)).mean(0).numpy()
    def with_level(attribute, level):
        attrs = plain.copy()
        attrs[:, ATTRS.index(attribute)] = level
        return attrs
    start = mean(plain)
    return {p: mean(with_level(*m))-start for p,m in MODIFIERS.items()}

def drawn_effects(gen, oracle, scenes:Sequence[str]=HELD_OUT, n:int=12) -> dict[str, np.ndarray]: # phrase -> (2,)
    'What each phrase changes when the generator reads it'
    start = oracle_affect(oracle, drawn(gen, scenes, 2*n, 0)).mean(0)
    mean = lambda p: oracle_affect(oracle, drawn(gen, [f'{s}, {p}' for s in scenes], n, 3)).mean(0)
    return {p: (mean(p)-start).numpy() for p in MODIFIERS}

def shares_of_painter(drawn:dict, painted:dict) -> dict[str, float]: # phrase -> 1 = as painted
    'How much of the painted change is drawn, along its direction'
    return {p: float(drawn[p]@e/(e@e)) for p,e in painted.items()}

def strongest(painted:dict) -> list[str]: # one phrase per attribute
    'The phrase of each attribute that changes most'
    of = lambda k: [p for p,(name,_) in MODIFIERS.items() if name==k]
    return [max(of(k), key=lambda p: float(np.linalg.norm(painted[p]))) for k in ATTRS]

def detail(x:Tensor) -> Tensor: # (B,3,H,W) in [0,1] -> (B,)
    'Spread of what a half-resolution blur takes away'
    low = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode='bilinear', align_corners=False)
    return (x-low).std((1, 2, 3))

def sharpness(gen, captions:Sequence[str], renders:Tensor) -> float: # 1 = as crisp as the autoencoder allows
    'Detail of drawn pictures over that of renders with the same captions through the autoencoder'
    x = gen.sample(list(captions), 8, generator=torch.Generator().manual_seed(9))
    return (detail(x).mean()/detail(round_trip(gen.pipe.vae, renders)).mean()).item()
