"""Models of graphs, sets and tables."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from written import fixed, ids, written


def edges():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, (2, 9), generator=generator)


def scatter_sum(src, index, dim=-1, dim_size=None):
    if dim < 0:
        dim = src.dim() + dim
    size = list(src.size())
    size[dim] = dim_size if dim_size is not None else int(index.max()) + 1
    shape = [1] * src.dim()
    shape[dim] = -1
    index = index.view(shape).expand_as(src)
    out = torch.zeros(size, dtype=src.dtype, device=src.device)
    return out.scatter_add_(dim, index, src)


class GCNConv(nn.Module):
    def __init__(self, i, o, **kwargs):
        super().__init__()
        self.lin, self.bias = nn.Linear(i, o, bias=False), nn.Parameter(torch.zeros(o))
        self.add_self_loops = kwargs.pop("add_self_loops", True)

    def forward(self, x, edge_index):
        if self.add_self_loops:
            loop = torch.arange(x.size(0), device=edge_index.device)
            edge_index = torch.cat([edge_index, loop.unsqueeze(0).repeat(2, 1)], dim=1)
        row, col = edge_index
        deg = x.new_zeros(x.size(0)).scatter_add_(0, col, torch.ones_like(col, dtype=x.dtype))
        deg_inv_sqrt = deg.pow(-0.5)
        deg_inv_sqrt.masked_fill_(deg_inv_sqrt == float("inf"), 0.0)
        norm = deg_inv_sqrt[row] * deg_inv_sqrt[col]
        x = self.lin(x)
        out = scatter_sum(norm.view(-1, 1) * x.index_select(0, row), col, 0, dim_size=x.size(0))
        return out + self.bias


@written((6,), fixed(edges))
class GCN(nn.Module):
    def __init__(self, i=6, h=8, o=3, layers=2):
        super().__init__()
        self.convs = nn.ModuleList([GCNConv(i, h)] + [GCNConv(h, h) for _ in range(layers - 1)])
        self.out = GCNConv(h, o, add_self_loops=False)

    def forward(self, x, edge_index):
        for conv in self.convs:
            x = F.dropout(F.relu(conv(x, edge_index)), p=0.5, training=self.training)
        return F.log_softmax(self.out(x, edge_index), dim=1)


class GATLayer(nn.Module):
    """Softmax over the edges of each node."""

    def __init__(self, i, o, heads):
        super().__init__()
        self.W = nn.Parameter(torch.empty(i, heads * o))
        self.a = nn.Parameter(torch.empty(1, heads, 2 * o))
        nn.init.xavier_uniform_(self.W.data, gain=1.414)
        nn.init.xavier_uniform_(self.a.data, gain=1.414)
        self.heads, self.o, self.leakyrelu = heads, o, nn.LeakyReLU(0.2)

    def forward(self, x, edge_index):
        N = x.shape[0]
        h = torch.mm(x, self.W).view(-1, self.heads, self.o)
        src, dst = edge_index[0], edge_index[1]
        e = self.leakyrelu((torch.cat([h[src], h[dst]], -1) * self.a).sum(-1))
        e = e - e.max().detach()
        e = e.exp()
        total = torch.zeros(N, self.heads, device=x.device).index_add_(0, dst, e)
        alpha = e / (total[dst] + 1e-16)
        out = torch.zeros_like(h).index_add(0, dst, h[src] * alpha.unsqueeze(-1))
        return F.elu(out.reshape(N, -1))


@written((6,), fixed(edges))
class GAT(nn.Module):
    def __init__(self):
        super().__init__()
        for i, (a, b, h) in enumerate([(6, 4, 2), (8, 3, 1)]):
            self.add_module(f"attention_{i}", GATLayer(a, b, h))

    def forward(self, x, edge_index):
        for i in range(2):
            x = self._modules[f"attention_{i}"](x, edge_index)
        return x


@written((6,), fixed(edges), fixed(lambda: torch.randn(9, 3)))
class MPNN(nn.Module):
    """Messages whose weights are computed from edges, and a gated update."""

    def __init__(self, d=6, e=3, steps=3):
        super().__init__()
        self.edge_net, self.gru = (
            nn.Sequential(nn.Linear(e, 8), nn.ReLU(), nn.Linear(8, d * d)),
            nn.GRUCell(d, d),
        )
        self.d, self.steps, self.readout = d, steps, nn.Linear(2 * d, 1)

    def forward(self, x, edge_index, edge_attr):
        weight = self.edge_net(edge_attr).view(-1, self.d, self.d)
        h = x
        for _ in range(self.steps):
            m = torch.bmm(h[edge_index[0]].unsqueeze(1), weight).squeeze(1)
            agg = torch.zeros_like(h).scatter_reduce_(
                0, edge_index[1][:, None].expand(-1, self.d), m, reduce="mean", include_self=False
            )
            h = self.gru(agg, h)
        return self.readout(torch.cat([h, x], dim=-1)).sum()


@written((5, 5), (5, 4))
class DenseGraph(nn.Module):
    """Adjacency as a matrix, normalised in the forward."""

    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(4, 4) * 0.3) for _ in range(2)])
        self.pool = nn.Linear(4, 2)

    @staticmethod
    def normalize(adj):
        adj = adj.sigmoid() + torch.eye(adj.size(-1), device=adj.device)
        d = adj.sum(-1).clamp(min=1e-6) ** -0.5
        return torch.diag_embed(d) @ adj @ torch.diag_embed(d)

    def forward(self, adj, x):
        adj = self.normalize(adj)
        for w in self.weights:
            x = F.relu(torch.einsum("bij,bjk,kl->bil", adj, x, w))
        s = torch.softmax(self.pool(x), dim=-1)
        return s.transpose(1, 2) @ x, s.transpose(1, 2) @ adj @ s


class MAB(nn.Module):
    def __init__(self, dim_Q, dim_K, dim_V, num_heads, ln=False):
        super().__init__()
        self.dim_V, self.num_heads = dim_V, num_heads
        self.fc_q, self.fc_k = nn.Linear(dim_Q, dim_V), nn.Linear(dim_K, dim_V)
        self.fc_v, self.fc_o = nn.Linear(dim_K, dim_V), nn.Linear(dim_V, dim_V)
        if ln:
            self.ln0, self.ln1 = nn.LayerNorm(dim_V), nn.LayerNorm(dim_V)

    def forward(self, Q, K):
        Q = self.fc_q(Q)
        K, V = self.fc_k(K), self.fc_v(K)
        dim_split = self.dim_V // self.num_heads
        Q_, K_, V_ = (torch.cat(t.split(dim_split, 2), 0) for t in (Q, K, V))
        A = torch.softmax(Q_.bmm(K_.transpose(1, 2)) / math.sqrt(self.dim_V), 2)
        O = torch.cat((Q_ + A.bmm(V_)).split(Q.size(0), 0), 2)
        O = O if getattr(self, "ln0", None) is None else self.ln0(O)
        O = O + F.relu(self.fc_o(O))
        return O if getattr(self, "ln1", None) is None else self.ln1(O)


class ISAB(nn.Module):
    def __init__(self, i, o, heads, inds, ln=False):
        super().__init__()
        self.I = nn.Parameter(torch.Tensor(1, inds, o))
        nn.init.xavier_uniform_(self.I)
        self.mab0, self.mab1 = MAB(o, i, o, heads, ln=ln), MAB(i, o, o, heads, ln=ln)

    def forward(self, X):
        return self.mab1(X, self.mab0(self.I.repeat(X.size(0), 1, 1), X))


class PMA(nn.Module):
    def __init__(self, dim, heads, seeds, ln=False):
        super().__init__()
        self.S = nn.Parameter(torch.Tensor(1, seeds, dim))
        nn.init.xavier_uniform_(self.S)
        self.mab = MAB(dim, dim, dim, heads, ln=ln)

    def forward(self, X):
        return self.mab(self.S.repeat(X.size(0), 1, 1), X)


@written((7, 3))
class SetTransformer(nn.Module):
    def __init__(self, dim=8, heads=2, ln=True):
        super().__init__()
        self.enc = nn.Sequential(ISAB(3, dim, heads, 4, ln=ln), ISAB(dim, dim, heads, 4, ln=ln))
        self.dec = nn.Sequential(PMA(dim, heads, 2, ln=ln), nn.Linear(dim, 3))

    def forward(self, X):
        return self.dec(self.enc(X)).squeeze()


@written((5, 3), (7, 3))
class DeepSets(nn.Module):
    """One encoder for two sets, masked pooling."""

    def __init__(self):
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(3, 8), nn.ELU(inplace=True), nn.Linear(8, 8))
        self.rho = nn.Linear(24, 1)
        self.att = nn.Linear(8, 1)

    def pool(self, s):
        h = self.phi(s)
        w = torch.softmax(self.att(h), dim=1)
        return torch.cat([(w * h).sum(1), h.amax(1), h.std(1)], -1)

    def forward(self, a, b):
        return self.rho(self.pool(a)) - self.rho(self.pool(b))


@written(
    (4,),
    lambda b: [torch.randint(10, (b * 3,)) for _ in range(2)],
    lambda b: [torch.arange(b) * 3 for _ in range(2)],
)
class DLRM(nn.Module):
    def __init__(self, m=6, ln_emb=(10, 10), ln_bot=(4, 8, 6)):
        super().__init__()
        self.emb_l = nn.ModuleList()
        for n in ln_emb:
            EE = nn.EmbeddingBag(n, m, mode="sum", sparse=False)
            EE.weight.data = torch.empty(n, m).uniform_(-((1 / n) ** 0.5), (1 / n) ** 0.5)
            self.emb_l.append(EE)
        self.bot_l = self.create_mlp(ln_bot, -1)
        num = len(ln_emb) + 1
        self.top_l = self.create_mlp((num * (num - 1) // 2 + m, 8, 1), 1)

    def create_mlp(self, ln, sigmoid_layer):
        layers = nn.ModuleList()
        for i in range(len(ln) - 1):
            layers.append(nn.Linear(int(ln[i]), int(ln[i + 1]), bias=True))
            layers.append(nn.Sigmoid() if i == sigmoid_layer else nn.ReLU())
        return nn.Sequential(*layers)

    def apply_emb(self, lS_o, lS_i):
        ly = []
        for k, sparse_index_group_batch in enumerate(lS_i):
            ly.append(self.emb_l[k](sparse_index_group_batch, lS_o[k]))
        return ly

    def interact_features(self, x, ly):
        (batch_size, d) = x.shape
        T = torch.cat([x, *ly], dim=1).view((batch_size, -1, d))
        Z = torch.bmm(T, torch.transpose(T, 1, 2))
        _, ni, nj = Z.shape
        li = torch.tensor([i for i in range(ni) for j in range(i)])
        lj = torch.tensor([j for i in range(nj) for j in range(i)])
        return torch.cat([x, Z[:, li, lj]], dim=1)

    def forward(self, dense_x, lS_i, lS_o):
        x = self.bot_l(dense_x)
        return self.top_l(self.interact_features(x, self.apply_emb(lS_o, lS_i)))


@written(ids(10, 4), (3,))
class DeepFM(nn.Module):
    """Embeddings by field from one table with offsets; factorisation machine and network."""

    def __init__(self, fields=(10, 10, 10, 10), d=4):
        super().__init__()
        self.embedding = nn.Embedding(sum(fields), d)
        self.offsets = torch.tensor([0, 10, 20, 30])
        self.linear = nn.Embedding(sum(fields), 1)
        self.bias = nn.Parameter(torch.zeros((1,)))
        layers = []
        dim = len(fields) * d + 3
        for width in (8, 8):
            layers += [nn.Linear(dim, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(p=0.2)]
            dim = width
        self.mlp = nn.Sequential(*layers, nn.Linear(dim, 1))

    def forward(self, x, dense):
        x = x + x.new_tensor([0, 10, 20, 30]).unsqueeze(0)
        e = self.embedding(x)
        fm = 0.5 * (torch.sum(e, dim=1) ** 2 - torch.sum(e**2, dim=1)).sum(1, keepdim=True)
        linear = torch.sum(self.linear(x), dim=1) + self.bias
        deep = self.mlp(torch.cat([e.view(-1, 16), dense], 1))
        return torch.sigmoid((linear + fm + deep).squeeze(1))


@written(
    lambda b: {
        "user": torch.randint(9, (b,)),
        "item": torch.randint(9, (b, 4)),
        "price": torch.rand(b),
    }
)
class FeatureDict(nn.Module):
    """Inputs come in a dict; embeddings are found by feature name."""

    def __init__(self, sizes=(("user", 9), ("item", 9)), d=4):
        super().__init__()
        self.embeddings = nn.ModuleDict({k: nn.Embedding(n, d) for k, n in sizes})
        self.towers = nn.ModuleDict({f"tower_{k}": nn.Linear(d + 1, 6) for k, _ in sizes})
        self.temperature = nn.Parameter(torch.ones([]) * math.log(1 / 0.07))

    def forward(self, batch):
        out = {}
        for key, table in self.embeddings.items():
            e = table(batch[key])
            e = e if e.dim() == 2 else e.mean(1)
            e = torch.cat([e, batch["price"].unsqueeze(-1)], dim=-1)
            out[key] = F.normalize(self.towers["tower_" + key](e), dim=-1)
        out["logits"] = self.temperature.exp() * out["user"] @ out["item"].T
        return out


@written((5,))
class NODE(nn.Module):
    """Soft decision trees."""

    def __init__(self, i=5, trees=3, depth=2):
        super().__init__()
        self.logits = nn.Parameter(torch.rand(i, trees, depth))
        self.thresholds = nn.Parameter(torch.randn(trees, depth))
        self.log_temp = nn.Parameter(torch.zeros(trees, depth))
        self.response = nn.Parameter(torch.randn(trees, 2, 2**depth))
        with torch.no_grad():
            indices = torch.arange(2**depth)
            offsets = 2 ** torch.arange(depth)
            codes = (indices.view(1, -1) // offsets.view(-1, 1) % 2).to(torch.float32)
            self.codes = nn.Parameter(torch.stack([codes, 1.0 - codes], -1), requires_grad=False)

    def forward(self, x):
        selected = torch.einsum("bi,ind->bnd", x, torch.softmax(self.logits, 0))
        t = (selected - self.thresholds) * torch.exp(-self.log_temp)
        t = torch.stack([-t, t], dim=-1)
        bins = (t * 0.5 + 0.5).clamp(0, 1)
        match = torch.einsum("btds,dcs->btdc", bins, self.codes)
        return torch.einsum("bnd,ncd->bnc", torch.prod(match, dim=-2), self.response).mean(1)
