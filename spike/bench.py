import time, sys, torch
torch.set_num_threads(1)
from diffusers import SD3Transformer2DModel
def net(w=96, d=4, p=4, hd=32):
    torch.manual_seed(0)
    return SD3Transformer2DModel(sample_size=16, patch_size=p, in_channels=4, out_channels=4, num_layers=d, attention_head_dim=hd,
        num_attention_heads=w//hd, joint_attention_dim=128, caption_projection_dim=w, pooled_projection_dim=128, pos_embed_max_size=16//p*2, qk_norm='rms_norm')
def bench(m, n=6):
    x, e, q, s = torch.randn(64, 4, 16, 16), torch.randn(64, 32, 128), torch.randn(64, 128), torch.rand(64)*1000
    f = lambda: m(x, encoder_hidden_states=e, pooled_projections=q, timestep=s, return_dict=False)[0]
    with torch.no_grad():
        f(); t = time.process_time()
        for _ in range(n): f()
        a = (time.process_time()-t)/n
    f().sum().backward(); t = time.process_time()
    for _ in range(n): f().square().mean().backward()
    return a, (time.process_time()-t)/n
if __name__=="__main__":
  for k in [dict(), dict(w=128, d=3), dict(w=128, d=4), dict(w=128,d=4,hd=64), dict(p=2), dict(p=2, w=64, d=4), dict(w=96, d=5),dict(w=160,d=3)]:
      m = net(**k)
      print(k, round(sum(p.numel() for p in m.parameters())/1e6, 2), 'M', [round(1000*t) for t in bench(m)], flush=True)
if __name__=="__main__" and len(sys.argv)>1:
    m = torch.compile(net())
    print('compiled', bench(m))
