"""Model types of Hugging Face transformers, tiny: two layers of width 32, and random weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.coverage.case import Case, Inputs, ids

LENGTH, VOCABULARY, SIDE = 10, 100, 32

WIDTHS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TEXT = {**WIDTHS, "vocab_size": VOCABULARY, "max_position_embeddings": 64}
DECODER = {**TEXT, "num_key_value_heads": 2, "use_cache": False, "bos_token_id": 1}
DECODER |= {"eos_token_id": 2, "pad_token_id": 0}
SEQUENCES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "use_cache": False,
}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "vocab_size": VOCABULARY,
    "use_cache": False,
}
IMAGE = {**WIDTHS, "image_size": SIDE, "patch_size": 8}
STAGES = {"num_channels": 3, "depths": [1, 1], "hidden_sizes": [16, 32], "num_stages": 2}
# Its convolutions over the waveform shorten 800 samples to 9 frames. What masks frames at random
# draws from NumPy's generator, and is off.
SPEECH = {
    **WIDTHS,
    "vocab_size": 32,
    "conv_dim": [16, 16, 16],
    "conv_kernel": [10, 8, 4],
    "conv_stride": [5, 4, 4],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "apply_spec_augment": False,
    "layerdrop": 0.0,
}
CLIP_TEXT = {**TEXT, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
CLIP = {"text_config": CLIP_TEXT, "vision_config": IMAGE, "projection_dim": 16}


def cases() -> list[Case]:
    """All of them, by modality."""
    by_task = {
        "text": [*_encoders(), *_decoders(), *_sequences()],
        "vision": _vision(),
        "audio": _audio(),
        "multimodal": _multimodal(),
    }
    return [
        dataclasses.replace(case, task=task) for task, found in by_task.items() for case in found
    ]


def _case(
    model: str, inputs: Callable[[int], Inputs], config: dict[str, object], **more: object
) -> Case:
    build = functools.partial(_build, model, {**config, **more})
    return Case(f"transformers:{model}", "transformers", "", build, inputs)


def _build(name: str, sizes: dict[str, object]) -> nn.Module:
    model: type[PreTrainedModel] = getattr(transformers, name)
    return model(model.config_class(**sizes))


# --------------------------------------------------------------------------- inputs


def _tokens(batch: int) -> Inputs:
    """Sequences of which all but the first end in padding."""
    mask = torch.ones(batch, LENGTH, dtype=torch.int64)
    mask[1:, -2:] = 0
    return {"input_ids": ids(batch, LENGTH, VOCABULARY), "attention_mask": mask}


def _tokens_alone(batch: int) -> Inputs:
    return {"input_ids": ids(batch, LENGTH, VOCABULARY)}


def _paired(batch: int) -> Inputs:
    """A source sequence with its mask, and a target sequence."""
    target = ids(batch, LENGTH - 3, VOCABULARY)
    return {**_keywords(_tokens(batch)), "decoder_input_ids": target}


def _pixels(batch: int, side: int = SIDE) -> Inputs:
    return {"pixel_values": torch.randn(batch, 3, side, side)}


def _large_pixels(batch: int) -> Inputs:
    return _pixels(batch, 64)


def _frames(batch: int) -> Inputs:
    return {"pixel_values": torch.randn(batch, 4, 3, SIDE, SIDE)}


def _waveform(batch: int) -> Inputs:
    return {"input_values": torch.randn(batch, 800)}


def _text_and_image(batch: int) -> Inputs:
    return {**_keywords(_tokens(batch)), **_keywords(_pixels(batch))}


def _tokens_and_image(batch: int) -> Inputs:
    return {**_keywords(_tokens_alone(batch)), **_keywords(_pixels(batch))}


def _keywords(inputs: Inputs) -> dict[str, object]:
    if not isinstance(inputs, dict):
        raise TypeError("these inputs are positional")
    return inputs


# --------------------------------------------------------------------------- text


def _encoders() -> list[Case]:
    def heads(prefix: str, suffixes: str, **more: object) -> list[Case]:
        return [_case(f"{prefix}{suffix}", _tokens, TEXT, **more) for suffix in suffixes.split()]

    tasks = "Model ForQuestionAnswering ForSequenceClassification ForTokenClassification"
    distil = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    narrow = {"intra_bottleneck_size": 16}
    # Its layers are counted by block.
    funnel = {key: value for key, value in TEXT.items() if key != "num_hidden_layers"}
    return [
        *heads("Bert", f"{tasks} ForMaskedLM"),
        *heads("Albert", f"{tasks} ForMaskedLM", embedding_size=16),
        *heads("Roberta", tasks),
        *heads("XLMRoberta", "Model ForMaskedLM"),
        *heads("Camembert", "ForTokenClassification"),
        *heads("Deberta", "Model ForSequenceClassification", pos_att_type=["p2c", "c2p"]),
        *heads(
            "DebertaV2",
            "Model ForQuestionAnswering",
            pos_att_type=["p2c", "c2p"],
            relative_attention=True,
            position_buckets=8,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
        ),
        *heads("Electra", "Model ForSequenceClassification", embedding_size=16),
        *heads("DistilBert", "Model ForQuestionAnswering ForSequenceClassification", **distil),
        *heads("MobileBert", "Model ForQuestionAnswering", embedding_size=16, **narrow),
        *heads("MPNet", "Model"),
        *heads("MegatronBert", "Model"),
        *heads("Ernie", "Model"),
        *heads("RoFormer", "ForSequenceClassification", embedding_size=32),
        *heads("SqueezeBert", "Model", embedding_size=32),
        *heads("Nystromformer", "Model", segment_means_seq_len=LENGTH, num_landmarks=LENGTH),
        *heads("BigBird", "Model", attention_type="original_full"),
        *heads("Longformer", "Model", attention_window=[4, 4]),
        *heads("ModernBert", "Model ForSequenceClassification", pad_token_id=0, cls_token_id=1),
        *heads("Esm", "Model", pad_token_id=1, mask_token_id=2, position_embedding_type="rotary"),
        *heads("Splinter", "Model"),
        *heads("LayoutLM", "Model"),
        _case("FNetModel", _tokens_alone, TEXT),
        _case("FunnelModel", _tokens, funnel, block_sizes=[1, 1], d_model=32, n_head=4, d_head=8),
        _case("XLNetModel", _tokens, {}, vocab_size=100, d_model=32, n_layer=2, n_head=4),
        _case("CanineModel", _tokens, TEXT, local_transformer_stride=4, num_hash_buckets=64),
    ]


def _decoders() -> list[Case]:
    gpt = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": VOCABULARY}
    gpt |= {"use_cache": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    state = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "use_cache": False}

    def named(names: str, **more: object) -> list[Case]:
        return [_case(name, _tokens, DECODER, **more) for name in names.split()]

    return [
        *[_case(name, _tokens, gpt) for name in "GPT2Model GPT2LMHeadModel".split()],
        _case("GPT2ForSequenceClassification", _tokens, gpt),
        _case("GPTJModel", _tokens, gpt, rotary_dim=4),
        _case("CodeGenModel", _tokens, gpt, rotary_dim=4, n_ctx=64),
        _case(
            "GPTNeoForCausalLM",
            _tokens,
            DECODER,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            window_size=4,
        ),
        *named("GPTNeoXForCausalLM"),
        *named("OPTForCausalLM", ffn_dim=64, word_embed_proj_dim=16),
        *named("LlamaModel LlamaForCausalLM LlamaForSequenceClassification"),
        *named("MistralForCausalLM", sliding_window=4),
        *named("Qwen2ForCausalLM Qwen3ForCausalLM Qwen3ForTokenClassification", head_dim=8),
        *named("MixtralForCausalLM", **experts),
        *named("Qwen3MoeForCausalLM", **experts, moe_intermediate_size=16, head_dim=8),
        *named("GemmaForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM", head_dim=8),
        *named("PhiForCausalLM Phi3ForCausalLM Olmo2ForCausalLM CohereForCausalLM"),
        *named("StableLmForCausalLM Starcoder2ForCausalLM GraniteForCausalLM SmolLM3ForCausalLM"),
        *named("GlmForCausalLM HeliumForCausalLM", head_dim=8),
        _case("PersimmonForCausalLM", _tokens, DECODER),
        _case("FalconForCausalLM", _tokens, DECODER, num_ln_in_parallel_attn=1),
        _case("BloomForCausalLM", _tokens, DECODER, n_layer=2, n_head=4),
        _case("MptForCausalLM", _tokens, DECODER, d_model=32, n_heads=4, n_layers=2),
        _case("CTRLModel", _tokens, gpt, dff=64),
        _case("BioGptForCausalLM", _tokens, DECODER, layerdrop=0.0),
        _case("MambaForCausalLM", _tokens_alone, state, hidden_size=32, state_size=8),
        _case(
            "Mamba2ForCausalLM",
            _tokens_alone,
            state,
            hidden_size=32,
            state_size=8,
            num_heads=4,
            head_dim=16,
            n_groups=1,
            chunk_size=4,
        ),
        _case("RwkvForCausalLM", _tokens_alone, state, hidden_size=32, attention_hidden_size=32),
    ]


def _sequences() -> list[Case]:
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    bart = {**SEQUENCES, **tokens}
    return [
        _case("T5Model", _paired, T5),
        _case("T5ForConditionalGeneration", _paired, T5),
        _case("T5EncoderModel", _tokens, T5),
        _case("MT5Model", _paired, T5),
        _case("UMT5Model", _paired, T5),
        _case("LongT5Model", _paired, T5, local_radius=4),
        _case("SwitchTransformersModel", _paired, T5, num_experts=4, expert_capacity=16),
        _case("BartModel", _paired, bart),
        _case("BartForConditionalGeneration", _paired, bart),
        _case("BartForQuestionAnswering", _tokens, bart),
        _case("MBartForConditionalGeneration", _paired, bart),
        _case("PegasusForConditionalGeneration", _paired, bart),
        _case("MarianMTModel", _paired, bart),
        _case("BlenderbotForConditionalGeneration", _paired, bart),
        _case(
            "LEDModel",
            _paired,
            bart,
            attention_window=[4, 4],
            max_encoder_position_embeddings=64,
            max_decoder_position_embeddings=64,
        ),
    ]


# --------------------------------------------------------------------------- vision


def _vision() -> list[Case]:
    swin = {"image_size": SIDE, "patch_size": 4, "embed_dim": 16, "depths": [1, 1]}
    swin |= {"num_heads": [2, 2], "window_size": 4, "drop_path_rate": 0.1}
    segformer = {
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 16, 24, 32],
        "num_attention_heads": [1, 2, 2, 4],
        "sr_ratios": [4, 2, 1, 1],
        "decoder_hidden_size": 16,
    }
    pvt = {
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 16, 24, 32],
        "num_attention_heads": [1, 2, 2, 4],
        "sr_ratios": [4, 2, 1, 1],
        "mlp_ratios": [2, 2, 2, 2],
    }
    video = {**IMAGE, "num_frames": 4}

    def images(names: str, config: dict[str, object], **more: object) -> list[Case]:
        return [_case(name, _pixels, config, **more) for name in names.split()]

    return [
        *images("ViTModel ViTForImageClassification DeiTModel DeiTForImageClassification", IMAGE),
        *images("BeitModel BeitForImageClassification", IMAGE, use_relative_position_bias=True),
        *images("Data2VecVisionModel", IMAGE, use_shared_relative_position_bias=True),
        *images("YolosModel", IMAGE, image_size=[SIDE, SIDE]),
        *images("ViTMSNModel Dinov2Model Dinov2ForImageClassification", IMAGE),
        *images("Dinov2WithRegistersModel IJepaModel", IMAGE),
        *images("SwinModel SwinForImageClassification Swinv2Model", swin),
        *images("ConvNextModel ConvNextForImageClassification ConvNextV2Model", STAGES),
        *images("ResNetModel ResNetForImageClassification", STAGES, embedding_size=16),
        *images("RegNetForImageClassification", STAGES, embedding_size=16, groups_width=8),
        *images("BitModel", STAGES, embedding_size=16, num_groups=8),
        *images("PoolFormerModel", {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32]}),
        *images("MobileNetV1Model MobileNetV2Model", {"depth_multiplier": 0.25}),
        *images(
            "EfficientNetModel",
            {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320},
        ),
        *images("FocalNetModel", {"image_size": SIDE, "embed_dim": 16, "depths": [1, 1]}),
        *images("PvtModel", pvt, image_size=SIDE, sequence_reduction_ratios=[4, 2, 1, 1]),
        _case("SegformerForSemanticSegmentation", _large_pixels, segformer),
        _case("SegformerForImageClassification", _large_pixels, segformer),
        _case("MobileViTModel", _large_pixels, {"image_size": 64, "hidden_sizes": [16, 24, 32]}),
        _case("HieraModel", _large_pixels, {"image_size": [64, 64], "embed_dim": 16}),
        _case(
            "DPTForDepthEstimation",
            _pixels,
            IMAGE,
            num_hidden_layers=4,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 8, 16, 16],
            fusion_hidden_size=16,
        ),
        _case("ViTMAEForPreTraining", _pixels, IMAGE, decoder_hidden_size=16, mask_ratio=0.5),
        _case("TimesformerModel", _frames, video),
        _case("VideoMAEModel", _frames, video, tubelet_size=2),
        _case("VivitModel", _frames, video, tubelet_size=[2, 8, 8]),
        _case(
            "Swin2SRForImageSuperResolution",
            _pixels,
            {**swin, "patch_size": 1},
            upscale=2,
            upsampler="pixelshuffle",
        ),
        *_perceivers(),
    ]


def _perceivers() -> list[Case]:
    sizes = {
        "num_latents": 8,
        "d_latents": 32,
        "d_model": 32,
        "num_blocks": 1,
        "num_self_attends_per_block": 2,
        "num_self_attention_heads": 4,
        "num_cross_attention_heads": 4,
        "qk_channels": 32,
        "v_channels": 32,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": LENGTH,
        "image_size": SIDE,
    }

    def vectors(batch: int) -> Inputs:
        return {"inputs": torch.randn(batch, LENGTH, 32)}

    def tokens(batch: int) -> Inputs:
        named = _keywords(_tokens(batch))
        return {"inputs": named["input_ids"], "attention_mask": named["attention_mask"]}

    def images(batch: int) -> Inputs:
        return {"inputs": torch.randn(batch, 3, SIDE, SIDE)}

    return [
        _case("PerceiverModel", vectors, sizes),
        _case("PerceiverForMaskedLM", tokens, sizes),
        _case("PerceiverForSequenceClassification", tokens, sizes),
        _case("PerceiverForImageClassificationLearned", images, {**sizes, "d_model": 512}),
    ]


# --------------------------------------------------------------------------- audio


def _audio() -> list[Case]:
    def spectrum(batch: int) -> Inputs:
        return {"input_values": torch.randn(batch, 32, 16)}

    def whisper(batch: int) -> Inputs:
        features = torch.randn(batch, 8, 40)
        return {"input_features": features, "decoder_input_ids": ids(batch, 5, VOCABULARY)}

    def filterbank(batch: int) -> Inputs:
        features = torch.randn(batch, 40, 8)
        return {"input_features": features, "decoder_input_ids": ids(batch, 5, VOCABULARY)}

    listening = {**SEQUENCES, "num_mel_bins": 8, "max_source_positions": 20, "pad_token_id": 0}
    listening |= {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    speech = "Wav2Vec2Model Wav2Vec2ForCTC Wav2Vec2ForSequenceClassification HubertModel"
    speech += " HubertForSequenceClassification WavLMModel UniSpeechModel Data2VecAudioModel"
    audio = {**WIDTHS, "patch_size": 8, "frequency_stride": 8, "time_stride": 8}
    audio |= {"max_length": 32, "num_mel_bins": 16}
    return [
        *[_case(name, _waveform, SPEECH) for name in speech.split()],
        _case("SEWModel", _waveform, SPEECH, squeeze_factor=2),
        _case("ASTModel", spectrum, audio),
        _case("ASTForAudioClassification", spectrum, audio),
        _case("WhisperModel", whisper, listening, max_target_positions=16),
        _case("WhisperForConditionalGeneration", whisper, listening, max_target_positions=16),
        _case(
            "Speech2TextModel",
            filterbank,
            {**listening, "max_source_positions": 40},
            input_feat_per_channel=8,
            conv_channels=16,
        ),
        _case("EncodecModel", _codec, {"num_filters": 4, "hidden_size": 16, "codebook_size": 16}),
    ]


def _codec(batch: int) -> Inputs:
    return {"input_values": torch.randn(batch, 1, 1280)}


# --------------------------------------------------------------------------- multimodal


def _multimodal() -> list[Case]:
    blip = {"text_config": {**TEXT, "encoder_hidden_size": 32}, "vision_config": IMAGE}
    blip |= {"projection_dim": 16, "image_text_hidden_size": 16}
    siglip = {"text_config": CLIP_TEXT, "vision_config": IMAGE}
    both = {"patch_size": 8, "image_size": SIDE}

    layout = {"coordinate_size": 6, "shape_size": 4}

    def seen(batch: int) -> Inputs:
        return {**_keywords(_tokens(batch)), "visual_embeds": torch.randn(batch, 4, 24)}

    def regions(batch: int) -> Inputs:
        boxes = torch.rand(batch, 4, 4)
        features = torch.randn(batch, 4, 24)
        return {**_keywords(_tokens(batch)), "visual_feats": features, "visual_pos": boxes}

    return [
        _case("CLIPModel", _text_and_image, CLIP),
        _case("CLIPTextModel", _tokens, CLIP_TEXT),
        _case("CLIPVisionModel", _pixels, IMAGE),
        _case("ChineseCLIPModel", _text_and_image, CLIP),
        _case("AltCLIPModel", _text_and_image, CLIP),
        _case("SiglipModel", _tokens_and_image, siglip),
        _case("BlipModel", _text_and_image, blip),
        _case("BlipForQuestionAnswering", _answer, blip),
        _case("ViltModel", _text_and_image, {**TEXT, **both}),
        _case("GitModel", _text_and_image, TEXT, vision_config=IMAGE, use_cache=False),
        _case("VisualBertModel", seen, TEXT, visual_embedding_dim=24),
        _case(
            "LxmertModel",
            regions,
            TEXT,
            visual_feat_dim=24,
            l_layers=1,
            r_layers=1,
            x_layers=1,
        ),
        _case("LayoutLMv3Model", _text_and_image, {**TEXT, **both}, input_size=SIDE, **layout),
        _case("FlavaImageModel", _pixels, IMAGE),
        _case("LlavaForConditionalGeneration", _conversation, _llava()),
    ]


def _answer(batch: int) -> Inputs:
    return {
        **_keywords(_text_and_image(batch)),
        "decoder_input_ids": ids(batch, 5, VOCABULARY),
    }


IMAGE_TOKEN = 99


def _llava() -> dict[str, object]:
    return {
        "text_config": {**DECODER, "model_type": "llama"},
        "vision_config": {**IMAGE, "model_type": "clip_vision_model", "projection_dim": 16},
        "image_token_index": IMAGE_TOKEN,
        "image_token_id": IMAGE_TOKEN,
        "vision_feature_layer": -1,
    }


def _conversation(batch: int) -> Inputs:
    """Token ids with places for the sixteen patches of an image."""
    text: Tensor = ids(batch, LENGTH, IMAGE_TOKEN)
    patches = torch.full((batch, (SIDE // 8) ** 2), IMAGE_TOKEN)
    joined = torch.cat((text[:, :2], patches, text[:, 2:]), 1)
    return {
        "input_ids": joined,
        "attention_mask": torch.ones_like(joined),
        **_keywords(_pixels(batch)),
    }
