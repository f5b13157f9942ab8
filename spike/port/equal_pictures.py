"""Pictures of one size go through the vision tower as one batch, not one by one"""
import torch.nn.functional as F
from torch import Tensor

def batched_attention(
    self, # Qwen2_5_VLVisionAttention
    hidden_states:Tensor, # (B·T,D) patches of all pictures
    cu_seqlens:Tensor, # (B+1,) where each picture begins
    position_embeddings:tuple[Tensor, Tensor]=None, # cosines and sines, (B·T,head) each
    **kwargs, # what the stock method takes
) -> Tensor: # (B·T,D)
    'The same numbers as the stock method, which calls attention once per picture'
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
    lengths = cu_seqlens.diff()
    if not (lengths==lengths[0]).all():
        return self.one_by_one(hidden_states, cu_seqlens=cu_seqlens, position_embeddings=position_embeddings, **kwargs)
    q, k, v = self.qkv(hidden_states).reshape(len(hidden_states), 3, self.num_heads, -1).unbind(1)
    q, k = apply_rotary_pos_emb_vision(q, k, *position_embeddings)
    q, k, v = (o.unflatten(0, (len(lengths), -1)).transpose(1, 2) for o in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, scale=self.scaling)
    return self.proj(out.transpose(1, 2).reshape(len(hidden_states), -1))

def batch_pictures() -> None:
    'Let Qwen2.5-VL see pictures of one size at once (on a CPU; flash attention does so by itself)'
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLVisionAttention as Attention
    if hasattr(Attention, 'one_by_one'): return
    Attention.one_by_one, Attention.forward = Attention.forward, batched_attention
