#pragma once
// The body of a request as the parts that a handler gets.
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "handler/request.h"

namespace penstock::rpc {

// Of multipart/form-data (RFC 7578) and of application/x-www-form-urlencoded one part for each field, of its name; of anything else one part
// "body" with the body's type. A body that calls itself urlencoded and begins with '{' or '[', as `curl -d` sends JSON, is no form.
// Errors: kInvalidArgument: a form that is none, more than handler::kMaxParts fields, a name or a field's header that is too long,
// a field that is encoded (base64, quoted-printable).
[[nodiscard]] Result<std::vector<handler::Part>> body_parts(std::string_view content_type, std::string body);

}  // namespace penstock::rpc
