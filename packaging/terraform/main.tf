# The user data of a machine that creates a runner of its own in a GitLab group and deletes it when it is destroyed.
# No provider is needed; pass `user_data` to the machine of yours:
#
#   module "runner" {
#     source         = "./packaging/terraform"
#     gitlab_url     = "https://gitlab.example.com"
#     group_id       = 7
#     name           = "build-1"
#     access_token   = gitlab_group_access_token.runner.token
#     package_url    = "https://packages.example.com/runner-agent_1.2.3-1_amd64.deb"
#     package_sha256 = "…"
#   }
#
# The access token needs the scope create_runner and may end the next day: after the first boot it is not needed again.
# With the provider gitlabhq/gitlab:
#
#   resource "gitlab_group_access_token" "runner" {
#     group        = 7
#     name         = "build-1"
#     access_level = "owner"
#     scopes       = ["create_runner"]
#     expires_at   = formatdate("YYYY-MM-DD", timeadd(plantimestamp(), "48h"))
#     lifecycle { ignore_changes = [expires_at] }
#   }

terraform {
  required_version = ">= 1.5"
}

variable "gitlab_url" {
  description = "GitLab instance."
  type        = string
}

variable "group_id" {
  description = "Id of the group that gets the runner."
  type        = number
}

variable "name" {
  description = "Name of the runner."
  type        = string
}

variable "access_token" {
  description = "Access token of the group with the scope create_runner. It is in the user data and in the state of Terraform."
  type        = string
  sensitive   = true
}

variable "package_url" {
  description = "Address of the Debian package of runner-agent."
  type        = string
}

variable "package_sha256" {
  description = "SHA-256 of the package."
  type        = string
  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.package_sha256))
    error_message = "It must have 64 hexadecimal digits."
  }
}

variable "executor" {
  description = "Executor of the entry in config.toml."
  type        = string
  default     = "shell"
}

variable "tag_list" {
  description = "Tags of the runner."
  type        = list(string)
  default     = []
}

output "user_data" {
  description = "User data for cloud-init."
  sensitive   = true
  value = templatefile("${path.module}/user-data.yaml.tftpl", {
    access_token   = var.access_token
    package_url    = var.package_url
    package_sha256 = var.package_sha256
    # A value of TOML is written as one of JSON.
    agent_toml = <<-END
      [[enroll]]
      key = "machine"
      name = ${jsonencode(var.name)}
      url = ${jsonencode(var.gitlab_url)}
      create = { runner_type = "group_type", group_id = ${var.group_id} }
      tag_list = ${jsonencode(var.tag_list)}
      executor = ${jsonencode(var.executor)}

      [[server]]
      url = ${jsonencode(var.gitlab_url)}
      access_token = { credential = "gitlab-access-token" }

      # The machine is destroyed by powering it off: the runner goes with it, whether or not the access token still works.
      [shutdown]
      unregister = "all"
    END
  })
}
