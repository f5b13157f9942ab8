import torch, time
torch.set_num_threads(1)
from bench import net
def bench(m, n=8, ac=False):
    x, e, q, s = torch.randn(64, 4, 16, 16), torch.randn(64, 32, 128), torch.randn(64, 128), torch.rand(64)*1000
    def f():
        with torch.autocast('cpu', torch.bfloat16, enabled=ac): return m(x, encoder_hidden_states=e, pooled_projections=q, timestep=s, return_dict=False)[0]
    f().float().square().mean().backward(); f().float().square().mean().backward(); t = time.process_time()
    for _ in range(n): f().float().square().mean().backward()
    return (time.process_time()-t)/n
k = dict(w=128, d=3)
print('plain', bench(net(**k)), 'autocast', bench(net(**k), ac=True), flush=True)
t=time.time(); m = torch.compile(net(**k)); print('compiled', bench(m), 'wall', time.time()-t, flush=True)
t=time.time(); m = torch.compile(net(**k)); print('compiled autocast', bench(m, ac=True), 'wall', time.time()-t, flush=True)
