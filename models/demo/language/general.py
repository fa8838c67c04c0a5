"""Courtesies, who the model is, and questions that it does not know; trained on, not graded."""

# ruff: noqa: E501 — rows of a table stay on one line
from __future__ import annotations

import random

from models.demo.language.items import Item, Language, roughen
from models.demo.language.talk import chat, fill

_WHO: dict[Language, str] = {
    "en": "I am a small demo model of Medical Record. I am not for the care of patients.",
    "pt": "Sou um pequeno modelo de demonstração do Medical Record. Não sirvo para cuidar de pacientes.",
}
_HELLO: dict[Language, str] = {
    "en": "Hello! Ask me about reference ranges, drugs, triage or SOAP notes.",
    "pt": "Olá! Pergunte sobre faixas de referência, medicamentos, triagem ou notas SOAP.",
}
_WELCOME: dict[Language, str] = {"en": "You are welcome!", "pt": "De nada!"}
_UNKNOWN: dict[Language, str] = {
    "en": "I do not know. I only know reference ranges, drugs, triage and SOAP notes.",
    "pt": "Não sei. Só conheço faixas de referência, medicamentos, triagem e notas SOAP.",
}
_ASKED: dict[Language, tuple[tuple[str, dict[Language, str]], ...]] = {
    "en": (
        *(
            (text, _HELLO)
            for text in (
                "Hello",
                "Hi",
                "Hi there!",
                "Good morning",
                "Good afternoon.",
                "Good evening",
                "Hey",
                "Hello, can you help me?",
                "What can you do?",
                "How can you help me?",
                "Help",
                "Test",
            )
        ),
        *(
            (text, _WHO)
            for text in (
                "Who are you?",
                "What are you?",
                "Are you a doctor?",
                "What is your name?",
                "Which model are you?",
                "Can I use you to treat patients?",
                "Are you an AI?",
                "Can I trust you?",
                "Introduce yourself.",
                "Are you a real doctor?",
                "Is this medical advice?",
                "Tell me about yourself.",
            )
        ),
        *(
            (text, _WELCOME)
            for text in ("Thanks!", "Thank you", "Thank you very much.", "Great, thanks")
        ),
    ),
    "pt": (
        *(
            (text, _HELLO)
            for text in (
                "Olá",
                "Oi",
                "Oi, tudo bem?",
                "Bom dia",
                "Boa tarde.",
                "Boa noite",
                "Opa",
                "Olá, você pode me ajudar?",
                "O que você sabe fazer?",
                "Como você pode me ajudar?",
                "Ajuda",
                "Teste",
            )
        ),
        *(
            (text, _WHO)
            for text in (
                "Quem é você?",
                "O que é você?",
                "Você é médico?",
                "Qual é o seu nome?",
                "Que modelo você é?",
                "Posso usar você para tratar pacientes?",
                "Você é uma IA?",
                "Posso confiar em você?",
                "Apresente-se.",
                "Você é um médico de verdade?",
                "Isso é um conselho médico?",
                "Fale sobre você.",
            )
        ),
        *(
            (text, _WELCOME)
            for text in ("Obrigado!", "Obrigada", "Muito obrigado.", "Ótimo, obrigado")
        ),
    ),
}
_ELSEWHERE: dict[Language, tuple[str, tuple[str, ...]]] = {
    "en": (
        "[What is|Tell me|Do you know|Explain|Who invented|Where is|Write about|How do I find|Why is there|Show me] {o}[?|.|]",
        (
            "the capital of France",
            "a poem about the sea",
            "the weather today",
            "a cake recipe",
            "the fastest car",
            "the history of Rome",
            "a joke",
            "the price of gold",
            "the president of Brazil",
            "a Python program",
            "the distance to the Moon",
            "the best football team",
            "a love letter",
            "the theory of relativity",
            "the meaning of life",
            "a song for children",
            "the stock market",
            "the population of China",
            "the airplane",
            "an essay on war",
            "the rules of chess",
            "the internet",
            "how to fix a bicycle",
            "my password",
            "the tallest mountain",
            "a film for tonight",
        ),
    ),
    "pt": (
        "[Qual é|Me diga|Você sabe|Explique|Quem inventou|Onde fica|Escreva sobre|Como acho|Por que existe|Mostre] {o}[?|.|]",
        (
            "a capital da França",
            "um poema sobre o mar",
            "o tempo hoje",
            "uma receita de bolo",
            "o carro mais rápido",
            "a história de Roma",
            "uma piada",
            "o preço do ouro",
            "o presidente do Brasil",
            "um programa em Python",
            "a distância até a Lua",
            "o melhor time de futebol",
            "uma carta de amor",
            "a teoria da relatividade",
            "o sentido da vida",
            "uma música para crianças",
            "a bolsa de valores",
            "a população da China",
            "o avião",
            "uma redação sobre a guerra",
            "as regras do xadrez",
            "a internet",
            "como consertar uma bicicleta",
            "minha senha",
            "a montanha mais alta",
            "um filme para hoje",
        ),
    ),
}


def general_item(rng: random.Random, language: Language) -> Item:
    """A greeting, a question about the model, thanks, or something outside of what it knows."""
    if rng.random() < 0.5:
        question, answers = rng.choice(_ASKED[language])
        answer = answers[language]
    else:
        pattern, objects = _ELSEWHERE[language]
        question, answer = fill(pattern, rng, {"o": rng.choice(objects)}), _UNKNOWN[language]
    return Item(
        "general",
        "general",
        language,
        chat(rng, language, roughen(question, rng)),
        answer,
        ((answer,),),
        (),
        f"{language}:general",
        "",
    )
