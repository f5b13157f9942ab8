'''The real architectures with their own configuration keys, scaled down: random weights, built in seconds

`sd35` is a Stable Diffusion 3.5 Medium (T5, 16-channel 8× VAE, dual attention, shift 3), `qwen` a Qwen2.5-VL of
patch 14 in the file layout of the Hub, `pickscore` a CLIP in the layout of PickScore_v1: no tokenizer, no preprocessor.
'''
import json
from pathlib import Path

import torch

from emofeedback.mini.models import clip_tokenizer
from emofeedback.processor import chat_template, train_tokenizer
from emofeedback.understanding.questions import DESCRIBE, DESCRIBE_FULL, SUGGEST, SUGGEST_FULL, TEXTS

WORDS = ['a lake by a forest at sunset, an old man walking his dog on the beach, children playing in the rain',
         'valence arousal -0123456789.,', '<think></think><answer>{"valence": 0.0, "arousal": -1.5, "emotion": "awe"}',
         'amusement awe contentment excitement anger disgust fear sadness']
CLIP_NORM = dict(image_mean=[.48145466, .4578275, .40821073], image_std=[.26862954, .26130258, .27577711])

def clip_words():
    'A CLIP tokenizer of 77 positions'
    tok = clip_tokenizer()
    tok.model_max_length = 77
    return tok

def ids(tok) -> dict: return {f'{k}_token_id': getattr(tok, f'{k}_token_id') for k in ('bos', 'eos', 'pad')}

def clip_text(tok, width:int, act:str, projection:int=None):
    from transformers import CLIPTextConfig
    return CLIPTextConfig(vocab_size=len(tok), hidden_size=width, intermediate_size=2*width, num_hidden_layers=2,
                          projection_dim=projection or width, num_attention_heads=2, max_position_embeddings=77,
                          hidden_act=act, **ids(tok))

def t5_words():
    'A T5 tokenizer of a few hundred pieces'
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import T5Tokenizer
    u = Tokenizer(models.Unigram())
    u.pre_tokenizer = pre_tokenizers.Metaspace()
    u.train_from_iterator(WORDS*50, trainers.UnigramTrainer(
        vocab_size=300, special_tokens=['<pad>', '</s>', '<unk>'], unk_token='<unk>', show_progress=False))
    return T5Tokenizer(vocab=[tuple(o) for o in json.loads(u.to_str())['model']['vocab']], model_max_length=512)

def sd35_vae(widths=(8, 16, 32, 32), groups:int=8):
    from diffusers import AutoencoderKL
    return AutoencoderKL(
        down_block_types=('DownEncoderBlock2D',)*4, up_block_types=('UpDecoderBlock2D',)*4, block_out_channels=widths,
        layers_per_block=2, latent_channels=16, norm_num_groups=groups, sample_size=1024, scaling_factor=1.5305,
        shift_factor=.0609, force_upcast=True, use_quant_conv=False, use_post_quant_conv=False)

def sd35_pipeline(dtype:torch.dtype=torch.bfloat16):
    'A `StableDiffusion3Pipeline` with the keys of SD3.5-Medium, made for 1024 px'
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel
    torch.manual_seed(0)
    tok, t5 = clip_words(), t5_words()
    net = SD3Transformer2DModel(
        sample_size=128, patch_size=2, in_channels=16, out_channels=16, num_layers=3, attention_head_dim=32,
        num_attention_heads=2, joint_attention_dim=64, caption_projection_dim=64, pooled_projection_dim=32+48,
        pos_embed_max_size=384, dual_attention_layers=(0, 1), qk_norm='rms_norm')
    te3 = T5EncoderModel(T5Config(vocab_size=len(t5), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4,
                                  feed_forward_proj='gated-gelu', tie_word_embeddings=False))
    towers = [CLIPTextModelWithProjection(clip_text(tok, *o)) for o in ((32, 'quick_gelu'), (48, 'gelu'))]
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.)
    return StableDiffusion3Pipeline(
        transformer=net, scheduler=scheduler, vae=sd35_vae(), text_encoder=towers[0], tokenizer=tok,
        text_encoder_2=towers[1], tokenizer_2=tok, text_encoder_3=te3, tokenizer_3=t5).to(dtype=dtype)

def sd35(folder:Path, dtype:torch.dtype=torch.bfloat16) -> Path:
    'Folder of `sd35_pipeline`'
    sd35_pipeline(dtype).save_pretrained(folder)
    return folder

def qwen(folder:Path, dtype:torch.dtype=torch.bfloat16, seed:int=0) -> Path:
    "Folder of a Qwen2.5-VL with the Hub's own files and keys; it has never seen our questions"
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    tok = train_tokenizer([*WORDS*20, *TEXTS.values(), SUGGEST, SUGGEST_FULL, DESCRIBE, DESCRIBE_FULL], 1500)
    at = tok.convert_tokens_to_ids
    pad, end = at('<|endoftext|>'), at('<|im_end|>')
    vision = dict(depth=2, hidden_size=48, num_heads=3, intermediate_size=96, out_hidden_size=64, patch_size=14,
                  spatial_merge_size=2, temporal_patch_size=2, window_size=112, fullatt_block_indexes=[1],
                  tokens_per_second=2)
    text = dict(vocab_size=(len(tok)+63)//64*64, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32768, max_window_layers=2,
                rope_parameters=dict(rope_type='default', rope_theta=1e6, mrope_section=[4, 6, 6]), bos_token_id=pad,
                eos_token_id=end, pad_token_id=pad, tie_word_embeddings=False)
    special = {f'{k}_token_id': at(f'<|{o}|>') for k,o in dict(
        image='image_pad', video='video_pad', vision_start='vision_start', vision_end='vision_end').items()}
    torch.manual_seed(seed)
    config = Qwen2_5_VLConfig(vision_config=vision, text_config=text, tie_word_embeddings=False, **special)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.update(do_sample=True, temperature=1e-6, repetition_penalty=1.05,
                                   eos_token_id=[end, pad], pad_token_id=pad, bos_token_id=pad)
    model.to(dtype).save_pretrained(folder)
    tok.save_pretrained(folder)
    for f in folder.glob('chat_template*'): f.unlink()
    (folder/'chat_template.json').write_text(json.dumps(dict(chat_template=chat_template())))
    (folder/'preprocessor_config.json').write_text(json.dumps(dict(
        min_pixels=3136, max_pixels=12845056, patch_size=14, temporal_patch_size=2, merge_size=2, **CLIP_NORM,
        image_processor_type='Qwen2VLImageProcessor', processor_class='Qwen2_5_VLProcessor')))
    return folder

def pickscore(folder:Path, processor:Path) -> Path:
    'Two folders, as published: weights and config alone, and a CLIP-H processor beside them'
    from transformers import CLIPConfig, CLIPModel
    tok = clip_words()
    text = clip_text(tok, 32, 'gelu').to_dict()
    vision = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=224,
                  patch_size=14, hidden_act='gelu')
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)).save_pretrained(folder)
    tok.save_pretrained(processor)
    (processor/'preprocessor_config.json').write_text(json.dumps(dict(
        crop_size=224, do_center_crop=True, do_normalize=True, do_resize=True, resample=3, size=224, **CLIP_NORM,
        feature_extractor_type='CLIPFeatureExtractor')))
    return folder
