"""A causal language model with random weights that is cheap to train, for tests that do not depend on what words mean."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    'Reply with JSON only, {"action": "delivery"}, where it is one of the actions listed above.',
    "where is my parcel for delivery, the billing invoice is wrong, hello, what a nice day, other",
    "system user assistant The quick brown fox jumps over the lazy dog. 0123456789 - : _ { } [ ] \n",
]


@cache
def tiny_generator_folder() -> Path:
    """The folder of a Llama of two layers, with a tokenizer of 400 tokens and a chat template; made once per process."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    folder = Path(tempfile.mkdtemp(prefix="fingerpost-tiny-generator-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(str(folder))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, eos_token_id=fast.eos_token_id, bos_token_id=None,
        pad_token_id=fast.pad_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(15)  # else no logit can be high enough to be sure
    model.save_pretrained(str(folder))
    return folder


@cache
def tiny_generative_student() -> Path:
    """A model folder: the tiny model, trained on the labels of the tests' messages; made once per process."""
    from conftest import TEXTS

    from fingerpost.core.text import question_id
    from fingerpost.core.types import Example, Label, Message
    from fingerpost.students.lora.train import fit
    from fingerpost.students.lora.tuning import Recipe
    from fingerpost.task.settings import Task

    labels = tuple(Label(name=name, description=f"about {name}") for name in TEXTS)
    rows = [
        Example(question_id(messages), messages, {label: 1.0})
        for label, texts in TEXTS.items()
        for text in texts
        if (messages := (Message("user", text),))
    ]
    folder = tiny_generator_folder().with_name(f"{tiny_generator_folder().name}-student") / "generative"
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    task = Task(name="shop", instructions="Route the message.", labels=labels)
    fit(rows, rows[1::2], task, folder, base=str(tiny_generator_folder()), recipe=Recipe(25, batch=4, patience=None))
    return folder


@cache
def tiny_generator_gguf() -> Path:
    """The same model as a GGUF file, written as llama.cpp's converter does: rows of q and k are interleaved."""
    import json

    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    folder = tiny_generator_folder()
    file = folder.with_name(f"{folder.name}-gguf") / "tiny.gguf"
    file.parent.mkdir()
    atexit.register(shutil.rmtree, file.parent, ignore_errors=True)
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    special = {one["content"]: one["id"] for one in tokenizer["added_tokens"]}
    tokens = [token for token, _ in sorted((vocabulary | special).items(), key=lambda item: item[1])]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_string("general.license", "apache-2.0")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(special["<|im_end|>"])
    writer.add_pad_token_id(special["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        count = heads if "q_proj" in name else key_heads if "k_proj" in name else 0
        if count:
            tensor = tensor.reshape(count, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        found = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(found, np.ascontiguousarray(tensor.astype(np.float32)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
