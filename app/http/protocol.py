"""Bytes that are not HTTP get the same error shape as everything else."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.http.errors import ApiError


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, with a JSON answer where its own would be plain text."""

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that could not be parsed, and hang up."""
        body = ApiError(400, msg).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
