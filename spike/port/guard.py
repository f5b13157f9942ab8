"""A guard of content whose unit means something: how far the scores of wrong contents lie"""
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emofeedback.core import Prompt
from emofeedback.feedback.loop import lost_words

@dataclass(frozen=True)
class ContentScale:
    'Where the scores of pictures that show their content lie, and where those of pictures that show another'
    right:float # mean score of pictures with their own content
    wrong:float # mean score of the same pictures with the other contents
    def share(self, scores:Tensor) -> Tensor: # any shape
        'Scores as a position between wrong (0) and right (1)'
        return (scores-self.wrong)/(self.right-self.wrong)

def wrong_prompts(prompts:Sequence[Prompt]) -> list[Prompt]:
    'Each prompt replaced by one with another content'
    texts = list(dict.fromkeys(p.content for p in prompts))
    if len(texts)<2: raise ValueError('the scale needs pictures of at least two contents: give more prompts')
    return [Prompt(texts[(texts.index(p.content)+1)%len(texts)], p.target, p.text) for p in prompts]

def measured_scale(
    clip:Callable, # (images, prompts) -> (B,), how well a picture shows `prompt.content`
    images:Tensor, # (B,3,H,W) in [0,1], drawn for `prompts`
    prompts:Sequence[Prompt], # of several contents
) -> ContentScale:
    'The scale of a CLIP of any size on a generator of any size: from a few pictures, without labels'
    return ContentScale(clip(images, prompts).mean().item(), clip(images, wrong_prompts(prompts)).mean().item())

@dataclass(frozen=True)
class ScaledGuard:
    'Refuses a round whose pictures, on the whole, show the content less than half as much as pictures do'
    clip:Callable # (images, prompts) -> (B,)
    scale:ContentScale # see `measured_scale`
    least:float=.5 # of the way from wrong to right (ours)

    def shown(self, prompt:Prompt, images:Tensor) -> float: # 0 = as a wrong content, 1 = as usual
        'How much the pictures of a round show their content: the median, so that one failure does not decide'
        return self.scale.share(self.clip(images, [prompt]*len(images))).median().item()

    def __call__(self,
        text:str, # the rewritten prompt
        prompt:Prompt, # what was asked
        images:Tensor=None, # pictures drawn from `text`, if there are any yet
        first:Tensor=None, # of the first round; not needed, the scale is fixed
    ) -> str|None: # why it is refused
        if lost := lost_words(text, prompt.content): return f'the text loses {", ".join(lost)}'
        if images is None: return None
        shown = self.shown(prompt, images)
        return None if shown>=self.least else f'the pictures lose the content: {shown:.0%} of the usual'

def refusal_rates(
    guard:ScaledGuard,
    images:Tensor, # (B,3,H,W) in [0,1]
    prompts:Sequence[Prompt], # B
    right:Tensor, # (B,) bool: a referee says that the picture shows its content
    round_size:int=8, # pictures that are judged together
    rounds:int=50, # of each content
    generator:torch.Generator=None, # of the rounds
) -> tuple[float, float]: # shares of refused rounds: of pictures that show their content, of pictures that do not
    'How often the guard refuses, rightly and wrongly'
    wrong, rates = wrong_prompts(prompts), []
    for content in dict.fromkeys(p.content for p in prompts):
        rows = torch.tensor([i for i,p in enumerate(prompts) if p.content==content and right[i]])
        some = rows[torch.randint(len(rows), (rounds, round_size), generator=generator)]
        asked = prompts[int(rows[0])], wrong[int(rows[0])]
        rates.append([sum(guard.shown(p, images[r])<guard.least for r in some)/rounds for p in asked])
    return tuple(torch.tensor(rates).mean(0).tolist())
