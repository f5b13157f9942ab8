"""Reading by expectation: the probabilities of the digits instead of the likeliest digits"""
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from emofeedback.core import HIGH
from emofeedback.core import Affect
from emofeedback.core import Judgement
from emofeedback.understanding.judge import check_image_tokens
from emofeedback.understanding.judge import pictures_of
from emofeedback.understanding.questions import Rate

@dataclass(frozen=True)
class Expected:
    'What a judge believes of B pictures'
    mean:Tensor # (B,2) expected valence and arousal
    spread:Tensor # (B,2) standard deviation of the belief: the uncertainty
    certain:Tensor # (B,) probability of the likeliest valence times that of the likeliest arousal
    readable:Tensor # (B,) probability that the answer is two numbers at all

    def judgements(self) -> list[Judgement]: # B
        'The expectations as readings; not rounded, so there are no ties'
        return [Judgement(Affect.clamp(*va)) for va in self.mean.tolist()]

class NumberTree:
    'Every number with one decimal from -3 to 3, as paths of tokens: sign, whole, point, tenth'
    def __init__(self,
        tokenizer, # digits are tokens of their own, as in every Qwen
        high:float=HIGH, # the largest number
    ):
        def one(text):
            ids = tokenizer(text)['input_ids']
            if len(ids)!=1: raise ValueError(f'{text!r} is {len(ids)} tokens: use a tokenizer that spells digits')
            return ids[0]
        self.signs = torch.tensor([one(' '), one(' -')])
        self.wholes = torch.tensor([one(str(d)) for d in range(int(high)+1)])
        self.tenths = torch.tensor([one(str(d)) for d in range(10)])
        self.point = one('.')
        size = torch.arange(len(self.wholes))[:, None] + torch.arange(10)/10
        self.values = torch.stack([size, -size]) # (2,4,10)
        self.allowed = self.values.abs()<=high+1e-6

    def spelled(self, x:Tensor) -> Tensor: # (B,) numbers -> (B,4) tokens
        'Numbers as tokens'
        tenths = (x*10).round().long()
        size = tenths.abs()
        point = torch.full_like(size, self.point)
        return torch.stack([self.signs[(tenths<0).long()], self.wholes[size//10], point, self.tenths[size%10]], 1)

@dataclass
class Said:
    'A conversation that was read so far, ready to go on'
    cache:object # keys and values
    mask:Tensor # (B,T) 1 = token, 0 = padding
    delta:Tensor # (B,1) by how much positions differ from counts, because a picture is a square
    logits:Tensor # (B,L,V) after each of the last tokens

def opening(model, inputs:dict, image:int) -> object: # keys and values of one row
    'What stands before the first picture, read once for all rows'
    n = int((inputs['input_ids'][0]==image).nonzero()[0])
    return model(input_ids=inputs['input_ids'][:1, :n], use_cache=True, logits_to_keep=1).past_key_values

def listen(
    model,
    inputs:dict, # from the processor
    begun:object=None, # from `opening`, used if no row is padded
) -> Said:
    'Read pictures and question'
    words = {k: inputs[k] for k in ('input_ids', 'attention_mask', 'image_grid_thw', 'mm_token_type_ids')}
    position, delta = model.model.get_rope_index(**words)
    skip, cache = 0, None
    if begun is not None and inputs['attention_mask'].all():
        skip, cache = begun.get_seq_length(), deepcopy(begun)
        cache.batch_repeat_interleave(len(position[0]))
    rest = {k: inputs[k][:, skip:] for k in ('input_ids', 'mm_token_type_ids')}
    same = {k: inputs[k] for k in ('attention_mask', 'pixel_values', 'image_grid_thw')}
    how = dict(past_key_values=cache, use_cache=True, logits_to_keep=1)
    out = model(**rest, **same, position_ids=position[:, :, skip:], **how)
    return Said(out.past_key_values, inputs['attention_mask'], delta, out.logits)

def go_on(model, said:Said, ids:Tensor) -> Said: # ids (B,L)
    'Read on; only what follows the last token is told'
    mask = torch.cat([said.mask, torch.ones_like(ids)], 1)
    position = (mask.cumsum(1)-1)[:, -ids.shape[1]:] + said.delta
    where = dict(attention_mask=mask, position_ids=position.expand(3, -1, -1))
    out = model(input_ids=ids, **where, past_key_values=said.cache, use_cache=True, logits_to_keep=1)
    return Said(out.past_key_values, mask, said.delta, out.logits)

def rows_of(said:Said, rows:Tensor) -> Said: # rows (N,) long, any of them as often as wanted
    'A copy of some conversations'
    cache = deepcopy(said.cache)
    cache.batch_select_indices(rows)
    return Said(cache, said.mask[rows], said.delta[rows], said.logits[rows])

def following(said:Said, tokens:Tensor) -> Tensor: # (B,len(tokens)) probabilities
    'How likely each of some tokens comes next'
    return said.logits[:, -1].float().softmax(-1)[:, tokens]

def number_belief(
    model,
    said:Said, # B conversations whose next token begins a number
    tree:NumberTree,
    beam:int=3, # beginnings (sign and whole) that are followed, of eight
) -> tuple[Tensor, Tensor]: # (B,2,4,10) probabilities that sum to 1, and (B,) what the numbers had together
    'The probability of every number, by two forward passes: over the signs, then over the likeliest beginnings'
    b, w = len(said.mask), len(tree.wholes)
    rows = torch.arange(b, device=said.mask.device)
    signed = go_on(model, rows_of(said, rows.repeat_interleave(2)), tree.signs.to(rows).repeat(b)[:, None])
    begun = following(said, tree.signs).flatten()[:, None]*following(signed, tree.wholes) # (2B,4)
    p, best = begun.view(b, 2*w).topk(beam, 1) # (B,beam)
    digits = torch.stack([tree.wholes.to(rows)[best%w], torch.full_like(best, tree.point)], -1).flatten(0, 1)
    ends = go_on(model, rows_of(signed, (2*rows[:, None]+best//w).flatten()), digits)
    leaves = p[..., None]*following(ends, tree.tenths).view(b, beam, 10)
    full = leaves.new_zeros(b, 2*w, 10).scatter(1, best[..., None].expand(-1, -1, 10), leaves)
    full = full.view(b, 2, w, 10)*tree.allowed.to(leaves)
    mass = full.sum((1, 2, 3))
    return full/mass.clamp(min=1e-9)[:, None, None, None], mass

def moments(p:Tensor, values:Tensor) -> tuple[Tensor, Tensor, Tensor]: # (B,) mean, spread and largest probability
    'What a belief comes to'
    p, x = p.flatten(1), values.to(p).flatten()
    mean = p@x
    return mean, ((p@x**2)-mean**2).clamp(min=0).sqrt(), p.max(1).values

@torch.no_grad()
def expected(
    judge, # LVLMJudge
    images:Tensor|Sequence, # (B,3,H,W) in [0,1], or PIL pictures
) -> Expected: # of B pictures
    'Valence and arousal as the mean of what the judge believes, in six short forward passes'
    tree, pictures, begun, parts = NumberTree(judge.processor.tokenizer), pictures_of(images), None, []
    for k in range(0, len(pictures), judge.batch_size):
        inputs = direct_inputs(judge, pictures[k:k+judge.batch_size])
        begun = begun or opening(judge.model, inputs, judge.processor.image_token_id)
        parts.append(believe(judge, listen(judge.model, inputs, begun), tree))
    return Expected(*map(torch.cat, zip(*parts)))

def direct_inputs(judge, pictures:list) -> dict: # tensors of one batch
    'Pictures with the question that is answered at once'
    model, processor, ask = judge.model, judge.processor, Rate(direct=True, full=judge.rate.full)
    text = processor.apply_chat_template(ask.ask(), add_generation_prompt=True, tokenize=False) + ask.prefix
    how = dict(padding=True, padding_side='left', return_tensors='pt')
    inputs = processor(text=[text]*len(pictures), images=pictures, **how).to(model.device)
    check_image_tokens(inputs, processor.image_token_id, processor.image_processor.merge_size)
    inputs['pixel_values'] = inputs['pixel_values'].to(model.dtype)
    return inputs

def believe(judge, said:Said, tree:NumberTree) -> tuple[Tensor, ...]: # the parts of an `Expected`
    'Valence, then arousal given the expected valence'
    v, v_mass = number_belief(judge.model, said, tree)
    v_mean, v_spread, v_top = moments(v, tree.values)
    between = torch.tensor(judge.processor.tokenizer(', "arousal":')['input_ids']).expand(len(v), -1)
    told = torch.cat([tree.spelled(v_mean.cpu()), between], 1).to(v.device)
    a, a_mass = number_belief(judge.model, go_on(judge.model, said, told), tree)
    a_mean, a_spread, a_top = moments(a, tree.values)
    return torch.stack([v_mean, a_mean], 1), torch.stack([v_spread, a_spread], 1), v_top*a_top, v_mass*a_mass

class ExpectingJudge:
    'An `LVLMJudge` that rates by expectation, and advises as before'
    def __init__(self,
        judge, # LVLMJudge
    ): self.inner = judge

    def __getattr__(self, name): return getattr(self.inner, name)

    def __repr__(self): return f'Expecting{self.inner!r}'

    def judge(self, images:Tensor|Sequence, prompts:Sequence=None) -> list[Judgement]: # B
        'The expected valence and arousal of each picture'
        return expected(self.inner, images).judgements()
