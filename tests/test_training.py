def test_smoke(tiny_adapter, tiny_model, tiny_data):
    import os
    print(os.listdir(tiny_adapter), os.listdir(tiny_data))
    print((tiny_adapter/"metrics.jsonl").read_text())
    print((tiny_adapter/"adapter_config.json").read_text())
    print({f.name: f.stat().st_size for f in tiny_model.iterdir()})
    from mlx_lm.utils import load
    m, t = load(str(tiny_model))
    import dataset
    ids = t.encode("<bos>Hi"); print(ids)
    turns=[("user"," a "),("model","b"),("user","c")]
    txt = dataset.render_chat(turns,"sys")
    print(repr(txt), t.encode(txt, add_special_tokens=False))
    x = t.apply_chat_template([{"role":"system","content":"sys"}]+[{"role":r if r=="user" else "assistant","content":c} for r,c in turns], add_generation_prompt=True, tokenize=True)
    print(x, t.decode(x))
