"""Models of Hugging Face configurations are built, and run on the inputs that these tell of."""

import json

import pytest
import torch
import transformers

from planner.errors import ModelSourceError
from planner.loading import load_model

TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 100,
}
IMAGE = {**TEXT, "image_size": 32, "patch_size": 8}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 100}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 100}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": 100,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
WAVE = {
    **TEXT,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
PERCEIVER = {
    "num_latents": 8,
    "d_latents": 16,
    "d_model": 32,
    "num_blocks": 1,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 2,
    "image_size": 32,
}
BRANCHES = {"text_config": TEXT, "vision_config": IMAGE}
IDS = (2, 24)
SEQUENCES = {"input_ids": IDS, "decoder_input_ids": IDS}

CASES = [
    ("bert", None, TEXT, {"input_ids": IDS}),
    ("bert", "BertForQuestionAnswering", TEXT, {"input_ids": IDS}),
    ("albert", None, {**TEXT, "embedding_size": 16}, {"input_ids": IDS}),
    ("roberta", "RobertaForSequenceClassification", TEXT, {"input_ids": IDS}),
    ("roberta", None, {**TEXT, "max_position_embeddings": 18}, {"input_ids": (2, 14)}),
    ("distilbert", None, {"dim": 32, "n_layers": 2, "n_heads": 4}, {"input_ids": IDS}),
    ("gpt2", "GPT2LMHeadModel", GPT, {"input_ids": IDS}),
    ("llama", "LlamaForCausalLM", TEXT, {"input_ids": IDS}),
    ("t5", None, T5, SEQUENCES),
    ("t5", "T5ForQuestionAnswering", T5, SEQUENCES),
    ("bart", None, BART, SEQUENCES),
    ("bart", "BartForSequenceClassification", BART, SEQUENCES),
    ("vit", "ViTForImageClassification", IMAGE, {"pixel_values": (2, 3, 32, 32)}),
    (
        "vit",
        None,
        {**IMAGE, "image_size": [32, 40], "num_channels": 1},
        {"pixel_values": (2, 1, 32, 40)},
    ),
    ("videomae", None, {**IMAGE, "num_frames": 4}, {"pixel_values": (2, 4, 3, 32, 32)}),
    (
        "clip",
        None,
        BRANCHES,
        {"input_ids": IDS, "attention_mask": IDS, "pixel_values": (2, 3, 32, 32)},
    ),
    (
        "clipseg",
        "CLIPSegForImageSegmentation",
        {**BRANCHES, "extract_layers": [0, 1], "reduce_dim": 16},
        {"input_ids": IDS, "attention_mask": IDS, "pixel_values": (2, 3, 32, 32)},
    ),
    (
        "vilt",
        None,
        IMAGE,
        {"input_ids": IDS, "attention_mask": IDS, "pixel_values": (2, 3, 32, 32)},
    ),
    (
        "llava",
        None,
        {
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": {**IMAGE, "model_type": "clip_vision_model"},
        },
        {"input_ids": IDS},
    ),
    (
        "whisper",
        None,
        {**BART, "max_source_positions": 30, "num_mel_bins": 16},
        {"input_features": (2, 16, 60), "decoder_input_ids": IDS},
    ),
    (
        "speech_to_text",
        None,
        {**BART, "input_feat_per_channel": 16, "conv_channels": 32},
        {"input_features": (2, 48, 16), "decoder_input_ids": IDS},
    ),
    (
        "audio-spectrogram-transformer",
        None,
        {**IMAGE, "max_length": 64, "num_mel_bins": 32},
        {"input_values": (2, 64, 32)},
    ),
    ("wav2vec2", None, WAVE, {"input_values": (2, 7760)}),
    ("layoutlm", None, TEXT, {"input_ids": IDS, "bbox": (2, 24, 4)}),
    ("perceiver", None, PERCEIVER, {"inputs": (2, 24, 32)}),
    ("perceiver", "PerceiverForMaskedLM", PERCEIVER, {"inputs": IDS}),
    (
        "perceiver",
        "PerceiverForImageClassificationLearned",
        PERCEIVER,
        {"inputs": (2, 3, 32, 32)},
    ),
]


@pytest.fixture
def write(tmp_path):
    """Write a configuration; returns its specification."""

    def write_file(**config):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config))
        return f"hf:{path}"

    return write_file


@pytest.mark.parametrize(
    ("model_type", "head", "config", "inputs"),
    CASES,
    ids=[f"{head or model_type}-{index}" for index, (model_type, head, *_) in enumerate(CASES)],
)
def test_a_model_runs_on_inputs_of_its_configuration(model_type, head, config, inputs, write):
    architecture = {"architectures": [head]} if head else {}
    loaded = load_model(write(model_type=model_type, **architecture, **config))
    assert not loaded.weights
    assert head in (None, type(loaded.model).__name__)
    example = dict(loaded.example.kwargs)
    assert {name: tuple(tensor.shape) for name, tensor in example.items()} == inputs
    # The same model with values.
    model = type(loaded.model)(loaded.model.config)
    for training in (False, True):
        output = model.train(training)(**example)
        assert "past_key_values" not in output
        first = output.to_tuple()[0]
        assert torch.isfinite(first).all()
        assert first[0].ne(first[1]).any(), "both items of the batch are alike"


def test_tokens_are_ordinary_and_end_as_texts_do(write):
    special = {"pad_token_id": 3, "bos_token_id": 4, "eos_token_id": [5, 6]}
    loaded = load_model(write(model_type="llama", **{**TEXT, **special, "vocab_size": 10}))
    (ids,) = loaded.example.leaves()
    assert set(ids[:, :-1].flatten().tolist()) == {0, 1, 2, 7, 8, 9}
    assert ids[:, -1].tolist() == [5, 5]


def test_a_cache_is_an_output_only_if_asked_for(write):
    spec = write(model_type="gpt2", use_cache=True, **GPT)
    assert load_model(spec).model.config.use_cache is False
    assert load_model(spec, {"use_cache": True}).model.config.use_cache is True


def test_parts_return_no_cache_either(write):
    text = {**TEXT, "model_type": "llama", "use_cache": True}
    vision = {**IMAGE, "model_type": "clip_vision_model"}
    loaded = load_model(write(model_type="llava", text_config=text, vision_config=vision))
    assert loaded.model.config.text_config.use_cache is False


def test_arguments_change_the_configuration(write):
    loaded = load_model(write(model_type="bert", **TEXT), {"num_hidden_layers": 1})
    assert len(loaded.model.encoder.layer) == 1
    assert isinstance(loaded.model, transformers.BertModel)


def test_inputs_that_no_configuration_tells_are_left_to_the_user(write):
    assert load_model(write(model_type="decision_transformer", **GPT)).example is None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"hidden_size": 32}, "has no model_type"),
        ({"model_type": "brt"}, "has the model_type 'brt', .* did you mean .*bert"),
        (
            {"model_type": "bert", "architectures": ["BertForQuestions"]},
            "'BertForQuestions', .* did you mean BertForQuestionAnswering",
        ),
        ({"model_type": "bert", "hidden_size": 10, "num_attention_heads": 3}, "ValueError"),
    ],
)
def test_configurations_that_build_nothing(config, said, write):
    with pytest.raises(ModelSourceError, match=said) as caught:
        load_model(write(**config))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_files_that_hold_no_configuration(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ModelSourceError, match=r"config\.json"):
        load_model(f"hf:{path}")
