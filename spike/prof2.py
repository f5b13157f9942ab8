import sys, time, torch, warnings
torch.set_num_threads(1); warnings.filterwarnings('ignore'); sys.path.insert(0, 'port')
from judge2 import *
from equal_pictures import batch_pictures
proc = load_processor('out/processor'); m = qwen(proc.tokenizer); b = CompactBank(proc, torch.rand(48, 3, 32, 32)); i = list(range(48))
v = b.values(i)
def t(n=4):
    P = time.process_time; see(m, v, b.grid).sum().backward(); a = P()
    for _ in range(n): see(m, v, b.grid).square().sum().backward()
    c = P()
    with torch.no_grad():
        for _ in range(n): y = see(m, v, b.grid)
    return (c-a)/n, (P()-c)/n, y
a = t(); batch_pictures(); c = t(); print(a[:2], c[:2], (a[2]-c[2]).abs().max())
from torch.profiler import profile
with profile() as p: see(m, v, b.grid).square().sum().backward()
print(p.key_averages().table(sort_by='self_cpu_time_total', row_limit=14, max_name_column_width=40))
