"""More models of sequences: state spaces, structured prediction, question answering."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from written import ids, written


@written(ids(20, 7), ids(20, 5))
class BiDAF(nn.Module):
    def __init__(self, vocab=20, d=8):
        super().__init__()
        self.emb = nn.Embedding(vocab, d)
        self.ctx = nn.LSTM(d, d, bidirectional=True, batch_first=True)
        for name in "cq":
            setattr(self, f"att_{name}", nn.Linear(2 * d, 1))
        self.att_cq = nn.Linear(2 * d, 1)
        self.modeling = nn.LSTM(8 * d, d, 2, bidirectional=True, batch_first=True, dropout=0.1)
        self.p1, self.p2 = nn.Linear(10 * d, 1), nn.Linear(10 * d, 1)

    def att_flow_layer(self, c, q):
        c_len, q_len = c.size(1), q.size(1)
        cq = []
        for i in range(q_len):
            qi = q.select(1, i).unsqueeze(1)
            cq.append(self.att_cq(c * qi).squeeze(-1))
        cq = torch.stack(cq, dim=-1)
        s = self.att_c(c).expand(-1, -1, q_len)
        s = s + self.att_q(q).permute(0, 2, 1).expand(-1, c_len, -1) + cq
        a = F.softmax(s, dim=2)
        c2q = torch.bmm(a, q)
        b = F.softmax(torch.max(s, dim=2)[0], dim=1).unsqueeze(1)
        q2c = torch.bmm(b, c).squeeze(1)
        q2c = q2c.unsqueeze(1).expand(-1, c_len, -1)
        return torch.cat([c, c2q, c * c2q, c * q2c], dim=-1)

    def forward(self, context, question):
        c, q = self.ctx(self.emb(context))[0], self.ctx(self.emb(question))[0]
        g = self.att_flow_layer(c, q)
        m, _ = self.modeling(g)
        gm = torch.cat([g, m], -1)
        start, end = self.p1(gm).squeeze(-1), self.p2(gm).squeeze(-1)
        mask = context == 0
        return start.masked_fill(mask, -1e30), end.masked_fill(mask, -1e30)


@written(
    ids(20, 6), ids(5, 6), lambda batch: torch.arange(6)[None] < torch.arange(batch)[:, None] + 2
)
class CRFTagger(nn.Module):
    def __init__(self, vocab=20, tags=5, d=8):
        super().__init__()
        self.emb, self.fc = nn.Embedding(vocab, d), nn.Linear(d, tags)
        self.start_transitions = nn.Parameter(torch.empty(tags).uniform_(-0.1, 0.1))
        self.end_transitions = nn.Parameter(torch.empty(tags).uniform_(-0.1, 0.1))
        self.transitions = nn.Parameter(torch.empty(tags, tags).uniform_(-0.1, 0.1))

    def score(self, emissions, tags, mask):
        seq_length, batch_size = tags.shape
        mask = mask.type_as(emissions)
        score = self.start_transitions[tags[0]]
        score += emissions[0, torch.arange(batch_size), tags[0]]
        for i in range(1, seq_length):
            score += self.transitions[tags[i - 1], tags[i]] * mask[i]
            score += emissions[i, torch.arange(batch_size), tags[i]] * mask[i]
        seq_ends = mask.long().sum(dim=0) - 1
        last_tags = tags[seq_ends, torch.arange(batch_size)]
        return score + self.end_transitions[last_tags]

    def normalizer(self, emissions, mask):
        score = self.start_transitions + emissions[0]
        for i in range(1, emissions.size(0)):
            broadcast_score = score.unsqueeze(2)
            broadcast_emissions = emissions[i].unsqueeze(1)
            next_score = broadcast_score + self.transitions + broadcast_emissions
            next_score = torch.logsumexp(next_score, dim=1)
            score = torch.where(mask[i].unsqueeze(1), next_score, score)
        return torch.logsumexp(score + self.end_transitions, dim=1)

    def forward(self, words, tags, mask):
        emissions = self.fc(self.emb(words)).transpose(0, 1)
        tags, mask = tags.transpose(0, 1), mask.transpose(0, 1)
        llh = self.score(emissions, tags, mask) - self.normalizer(emissions, mask)
        return llh.sum() / mask.float().sum()


@dataclass
class MambaArgs:
    d_model: int = 8
    n_layer: int = 2
    vocab: int = 24
    d_state: int = 4
    d_conv: int = 3

    def __post_init__(self):
        self.d_inner = 2 * self.d_model
        self.dt_rank = math.ceil(self.d_model / 4)


class RMSNorm(nn.Module):
    def __init__(self, d, eps: float = 1e-5):
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(d))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class MambaBlock(nn.Module):
    def __init__(self, args: MambaArgs):
        super().__init__()
        self.args = args
        self.in_proj = nn.Linear(args.d_model, args.d_inner * 2, bias=False)
        self.conv1d = nn.Conv1d(
            args.d_inner, args.d_inner, args.d_conv, groups=args.d_inner, padding=args.d_conv - 1
        )
        self.x_proj = nn.Linear(args.d_inner, args.dt_rank + args.d_state * 2, bias=False)
        self.dt_proj = nn.Linear(args.dt_rank, args.d_inner)
        A = torch.arange(1, args.d_state + 1).float().repeat(args.d_inner, 1)
        self.A_log = nn.Parameter(torch.log(A))
        self.D = nn.Parameter(torch.ones(args.d_inner))
        self.out_proj = nn.Linear(args.d_inner, args.d_model, bias=False)

    def forward(self, x):
        (b, l, d) = x.shape
        (x, res) = self.in_proj(x).split([self.args.d_inner, self.args.d_inner], dim=-1)
        x = self.conv1d(x.transpose(1, 2))[:, :, :l].transpose(1, 2)
        x = F.silu(x)
        y = self.ssm(x) * F.silu(res)
        return self.out_proj(y)

    def ssm(self, x):
        n = self.A_log.shape[1]
        A = -torch.exp(self.A_log.float())
        (delta, B, C) = self.x_proj(x).split([self.args.dt_rank, n, n], dim=-1)
        delta = F.softplus(self.dt_proj(delta))
        deltaA = torch.exp(torch.einsum("bld,dn->bldn", delta, A))
        deltaB_u = torch.einsum("bld,bln,bld->bldn", delta, B, x)
        h = torch.zeros((x.shape[0], x.shape[2], n), device=x.device)
        ys = []
        for i in range(x.shape[1]):
            h = deltaA[:, i] * h + deltaB_u[:, i]
            ys.append(torch.einsum("bdn,bn->bd", h, C[:, i, :]))
        return torch.stack(ys, dim=1) + x * self.D


class MambaResidual(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.mixer, self.norm = MambaBlock(args), RMSNorm(args.d_model)

    def forward(self, x):
        return self.mixer(self.norm(x)) + x


@written(ids(24, 6))
class Mamba(nn.Module):
    def __init__(self, args=None):
        super().__init__()
        self.args = args = args or MambaArgs()
        self.embedding = nn.Embedding(args.vocab, args.d_model)
        self.layers = nn.ModuleList([MambaResidual(args) for _ in range(args.n_layer)])
        self.norm_f = RMSNorm(args.d_model)
        self.lm_head = nn.Linear(args.d_model, args.vocab, bias=False)
        self.lm_head.weight = self.embedding.weight

    def forward(self, input_ids):
        x = self.embedding(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm_f(x))


@written((10, 4))
class S4D(nn.Module):
    """A diagonal state space: a kernel from complex parameters, applied by FFT."""

    def __init__(self, d=4, N=8):
        super().__init__()
        log_dt = torch.rand(d) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)
        self.C = nn.Parameter(torch.view_as_real(torch.randn(d, N // 2, dtype=torch.cfloat)))
        self.log_dt = nn.Parameter(log_dt)
        self.log_A_real = nn.Parameter(torch.log(0.5 * torch.ones(d, N // 2)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(N // 2).float().repeat(d, 1))
        self.D = nn.Parameter(torch.randn(d))
        self.out = nn.Sequential(nn.Conv1d(d, 2 * d, kernel_size=1), nn.GLU(dim=-2))

    def kernel(self, L):
        dt = torch.exp(self.log_dt)
        C = torch.view_as_complex(self.C)
        A = -torch.exp(self.log_A_real) + 1j * self.A_imag
        dtA = A * dt.unsqueeze(-1)
        K = dtA.unsqueeze(-1) * torch.arange(L, device=A.device)
        C = C * (torch.exp(dtA) - 1.0) / A
        return 2 * torch.einsum("hn, hnl -> hl", C, torch.exp(K)).real

    def forward(self, u):
        u = u.transpose(-1, -2)
        L = u.size(-1)
        k = self.kernel(L=L)
        k_f, u_f = torch.fft.rfft(k, n=2 * L), torch.fft.rfft(u, n=2 * L)
        y = torch.fft.irfft(u_f * k_f, n=2 * L)[..., :L]
        y = y + u * self.D.unsqueeze(-1)
        return self.out(F.gelu(y)).transpose(-1, -2)


class FNetBlock(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.ff = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, x):
        x = self.norm1(x + torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real)
        return self.norm2(x + self.ff(x))


@written((6, 8))
class FNet(nn.Module):
    def __init__(self, d=8, depth=2):
        super().__init__()
        self.layers = nn.ModuleList([])
        for _ in range(depth):
            self.layers.append(nn.ModuleList([nn.Dropout(0.1), FNetBlock(d)]))

    def forward(self, x):
        for drop, block in self.layers:
            x = drop(block(x))
        return x


@written((24, 3))
class DLinear(nn.Module):
    """Series decomposition, one linear for each channel."""

    def __init__(self, seq=24, pred=6, channels=3, kernel=5):
        super().__init__()
        self.kernel, self.avg = kernel, nn.AvgPool1d(kernel_size=kernel, stride=1, padding=0)
        self.Linear_Seasonal = nn.ModuleList(nn.Linear(seq, pred) for _ in range(channels))
        self.Linear_Trend = nn.ModuleList(nn.Linear(seq, pred) for _ in range(channels))
        self.pred_len, self.channels = pred, channels

    def forward(self, x):
        front = x[:, 0:1, :].repeat(1, (self.kernel - 1) // 2, 1)
        end = x[:, -1:, :].repeat(1, (self.kernel - 1) // 2, 1)
        trend = self.avg(torch.cat([front, x, end], dim=1).permute(0, 2, 1))
        seasonal = x.permute(0, 2, 1) - trend
        s_out = torch.zeros([x.size(0), self.channels, self.pred_len], dtype=x.dtype)
        t_out = torch.zeros([x.size(0), self.channels, self.pred_len], dtype=x.dtype).to(x.device)
        for i in range(self.channels):
            s_out[:, i, :] = self.Linear_Seasonal[i](seasonal[:, i, :])
            t_out[:, i, :] = self.Linear_Trend[i](trend[:, i, :])
        return (s_out + t_out).permute(0, 2, 1)


@written((16, 4))
class Autoformer(nn.Module):
    """Auto-correlation: the delays with the largest correlation, gathered."""

    def __init__(self, d=4, heads=2):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.heads = heads

    def forward(self, x):
        B, L, _ = x.shape
        q, k, v = (
            f(x).view(B, L, self.heads, -1).permute(0, 2, 3, 1) for f in (self.q, self.k, self.v)
        )
        res = torch.fft.rfft(q, dim=-1) * torch.conj(torch.fft.rfft(k, dim=-1))
        corr = torch.fft.irfft(res, dim=-1)
        top_k = int(1 * math.log(L))
        mean = corr.mean(dim=1).mean(dim=1)
        weights, delay = torch.topk(mean, top_k, dim=-1)
        probs = torch.softmax(weights, dim=-1)
        index = torch.arange(L)[None, None, None].repeat(B, q.shape[1], q.shape[2], 1).to(v.device)
        values = v.repeat(1, 1, 1, 2)
        agg = torch.zeros_like(v).float()
        for i in range(top_k):
            tmp = index + delay[:, i].view(B, 1, 1, 1).repeat(1, q.shape[1], q.shape[2], L)
            agg = agg + torch.gather(values, dim=-1, index=tmp) * probs[:, i].view(B, 1, 1, 1)
        return self.o(agg.permute(0, 3, 1, 2).reshape(B, L, -1))
